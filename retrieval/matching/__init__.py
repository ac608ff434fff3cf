"""Anonymised matching: do two texts mean the same whose characters are numbers? (Su, https://kexue.fm/archives/8213)

| file | what |
|---|---|
| alphabet | the numbers as a vocabulary |
| pairs | rows of files as ids |
| hiding | what of a pair is to be guessed |
| batches, program, train | one softmax over the vocabulary for hidden tokens and labels |
| predict, score | the label's probability, and how good it is |
| commands | what scripts.match_anonymised does |
| anonymise | text as numbers by a private map, to measure with |
| alignment | which character a number may be |
"""
