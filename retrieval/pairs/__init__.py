"""Pairs of texts that are alike, for who has no bank of questions: merged, gathered, mined, or written by a model.

same        when two texts are the same, and what is too short to say anything
tally       how much was read, kept and left out, and why; files of pairs and of groups
groups      synonymous questions merged; answers to one question
passages    sentences of one passage by overlap
mined       nearest neighbours among short texts, by vectors
instructed  labelled pairs as examples of instructions (templates), on which a model learns to follow them
written     what a model writes by instructions, away from what others would make of it

commands and, of what a model is asked for, model_commands are what scripts.make_pairs runs.
"""
