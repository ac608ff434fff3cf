"""What helps, on one's own labelled pairs, in one command that goes on.

similarity_grid    models x poolings x what is done to the vectors x tasks of scored pairs; similarity_report its page
alignment_grid     methods x kinds of plain text x sizes: how much of an anonymised text is found;
                   alignment_report its page
matching_ablation  the ways of matching anonymised pairs (matching_ways) x folds x seeds; matching_report its page
question_ablation  the ways of training RoFormer-Sim, and others, x seeds (question_ways), on texts that were held out;
                   what is drawn is judged by another encoder (question_judge); question_ablation_report its page
"""
