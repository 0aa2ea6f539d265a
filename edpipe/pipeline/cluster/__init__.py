"""Jobs of Snakemake on a cluster: submitted, watched, submitted again where that helps, and cancelled."""
