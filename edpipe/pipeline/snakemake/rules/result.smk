localrules:
    result,
    study,


rule evaluate:
    input:
        unpack(inputs_of(students.evaluate)),
    output:
        "artifacts/evaluations/{experiment}/seed{seed}.json",
    log:
        "logs/evaluate/{experiment}-seed{seed}.log",
    threads: threads_of(students.evaluate)
    resources:
        gpu=gpus,
        mem_mb=4000,
        runtime=120,
    params:
        knobs=knobs_of(students.evaluate),
        code=code_of(students.evaluate),
        knobs_digest=knobs_digest_of(students.evaluate),
    shell:
        "EDPIPE_KNOBS={params.knobs_digest}"
        " exec edpipe evaluate --experiment {wildcards.experiment} --seed {wildcards.seed} > {log} 2>&1"


rule result:
    input:
        unpack(inputs_of(students.result)),
    output:
        result=report("results/{experiment}.json", caption="../report/result.rst", category="Results"),
        curve="results/{experiment}.csv",
        metrics="results/metrics/{experiment}.json",
    log:
        "logs/result/{experiment}.log",
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        knobs=knobs_of(students.result),
        code=code_of(students.result),
        knobs_digest=knobs_digest_of(students.result),
    shell:
        "EDPIPE_KNOBS={params.knobs_digest}" " exec edpipe result --experiment {wildcards.experiment} > {log} 2>&1"


rule study:
    input:
        unpack(inputs_of(students.study)),
    output:
        study=report("results/study_{study}.json", caption="../report/study.rst", category="Studies"),
        table="results/study_{study}.md",
        figure=report("results/study_{study}.svg", caption="../report/study.rst", category="Studies"),
    log:
        "logs/study/{study}.log",
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        knobs=knobs_of(students.study),
        code=code_of(students.study),
        knobs_digest=knobs_digest_of(students.study),
    shell:
        "EDPIPE_KNOBS={params.knobs_digest}" " exec edpipe study --study {wildcards.study} > {log} 2>&1"
