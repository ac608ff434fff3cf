"""Few-shot: objectives of pretraining, compared by what a model then learns from few examples."""
