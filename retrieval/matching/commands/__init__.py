"""The commands of scripts.match_anonymised."""
