localrules:
    report,


rule report:
    input:
        unpack(inputs_of(students.report)),
    output:
        report("results/{experiment}.html", caption="../report/report.rst", category="Reports"),
    log:
        local("logs/report/{experiment}.log"),
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        knobs=knobs_of(students.report),
        code=code_of(students.report),
        knobs_digest=knobs_digest_of(students.report),
    shell:
        "EDPIPE_KNOBS={params.knobs_digest}" " exec edpipe report --experiment {wildcards.experiment} > {log} 2>&1"
