"""Anonymised matching: do two texts mean the same whose characters are numbers? (Su, https://kexue.fm/archives/8213)

| file | what |
|---|---|
| alphabet | the numbers as a vocabulary |
| pairs | rows of files as ids |
| hiding | what of a pair is to be guessed |
| closure | labels that follow from others |
| start | an encoder of plain text that begins to read numbers, and to match |
| batches, program, train | one softmax over the vocabulary for hidden tokens and labels |
| matcher | what a training leaves, and how its pairs became ids |
| predict, score | the label's probability, and how good it is |
| commands | what scripts.match_anonymised does |
| anonymise | text as numbers by a private map, to measure with |
| alignment | which character a number may be |
"""
