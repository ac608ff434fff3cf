"""Which character a number may be: functions of two corpora, plain and anonymised.

| file | by what |
|---|---|
| statistics | how often tokens come, and beside which others |
| rank | the order of frequency, as the post has it |
| transport | Gromov-Wasserstein between what stands beside the commonest |
| context | what stands beside, matched in turns |
| likelihood | context with what the encoder expects |
| methods | these by name |
| table | alignments as files, and how right they are |
"""
