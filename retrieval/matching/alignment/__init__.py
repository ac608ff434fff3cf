"""Which character a number may be: functions of two corpora, plain and anonymised.

| file | by what |
|---|---|
| statistics | how often tokens come, and beside which others |
| rank | the order of frequency, as the seed has it |
| context | beside what a token stands, assigned one to one in turns |
| transport | Gromov-Wasserstein between both sides' bigrams |
| likelihood | what a masked language model of plain text takes a number for |
| table | alignments as files, and how right they are |
"""
