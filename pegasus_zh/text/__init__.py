"""Documents, pairs of texts and sentences, read and cut; vocabularies and tokenizers."""
