"""Which character a number may be: functions of two corpora, plain and anonymised.

| file | by what |
|---|---|
| statistics | how often tokens come, and beside which others |
| rank | the order of frequency, as the seed has it |
| context | beside what a token stands, assigned one to one in turns |
| table | alignments as files, and how right they are |
"""
