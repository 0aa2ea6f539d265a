"""params.yaml: typed knobs by topic, loading, checking, and the jobs that follow from them."""
