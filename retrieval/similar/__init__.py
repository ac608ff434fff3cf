"""Similar questions of a text: drawn by a model that writes, ranked by the vectors of the same model
(RoFormer-Sim: Su, https://kexue.fm/archives/8454).

drawing  what is drawn for a text, and what of it is kept: the settings
prompts  texts as prompts, with words in them that are to change
writer   the model: which can write at all, its draws and its vectors
ranking  of draws the nearest, or nearest and unlike each other; how diverse they are
command  a file of texts, or a prompt, to similar questions; augment a labelled set that grows by them
"""
