rule run_stage:
    input:
        unpack(inputs_of(students.run_stage)),
    output:
        weights="artifacts/students/{experiment}/seed{seed}/{number}_{stage}.safetensors",
        record="artifacts/students/{experiment}/seed{seed}/{number}_{stage}.json",
    log:
        local("logs/run_stage/{experiment}-seed{seed}-{number}_{stage}.log"),
    # Trials of searches are trained as experiments are, and by no other rule measured or reported as those.
    wildcard_constraints:
        experiment=one_of(PARAMS.with_trials.experiments),
    threads: training_threads_of(students.run_stage)
    resources:
        gpu=training_gpus,
        nodes=NODES,
        mem_mb=8000,
        runtime=1440,
    params:
        knobs=knobs_of(students.run_stage),
        code=code_of(students.run_stage),
        knobs_digest=knobs_digest_of(students.run_stage),
    shell:
        "EDPIPE_KNOBS={params.knobs_digest}"
        " exec edpipe run_stage --experiment {wildcards.experiment} --seed {wildcards.seed} --stage {wildcards.stage}"
        " > {log} 2>&1"
