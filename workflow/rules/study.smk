localrules:
    study,


rule study:
    input:
        unpack(inputs_of(jobs.study)),
    output:
        study=report("results/study_{study}.json", caption="../report/study.rst", category="Studies"),
        table="results/study_{study}.md",
    log:
        "logs/study/{study}.log",
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        knobs=knobs_of(jobs.study),
    shell:
        "exec edpipe study --study {wildcards.study} > {log} 2>&1"
