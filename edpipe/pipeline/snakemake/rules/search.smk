rule search:
    input:
        unpack(inputs_of(searches.search)),
    output:
        search=report("results/search_{search}.json", caption="../report/search.rst", category="Searches"),
        table="results/search_{search}.md",
    log:
        "logs/search/search_{search}.log",
    threads: threads_of(searches.search)
    resources:
        gpu=gpus,
        mem_mb=4000,
        runtime=120,
    params:
        knobs=knobs_of(searches.search),
        code=code_of(searches.search),
        knobs_digest=knobs_digest_of(searches.search),
    shell:
        "EDPIPE_KNOBS={params.knobs_digest}" " exec edpipe search --search {wildcards.search} > {log} 2>&1"
