"""Artifacts in a store of Snakemake's on S3: real steps, the local executor, and no path that hosts would share.

The server is s3_server.py; what it holds is compared with a run that had nothing but local files.
"""

import pytest
from project import AS_SNAKEMAKE_SAYS, copy_of, make_project, tiny_params, without_cost
from s3_server import BUCKET, CREDENTIALS

pytest.importorskip("snakemake_storage_plugin_s3")
pytestmark = pytest.mark.slow

RESULT = "results/ed.json"
PREFIX = "project"
STORED = ("--default-storage-provider", "s3", "--default-storage-prefix", f"s3://{BUCKET}/{PREFIX}")


class Host:
    """A host with a clone of the project, and the store; nothing else is common to two of them."""

    def __init__(self, project, store):
        self.project, self.root = project, project.root
        self.variables = store.environment | {
            "SNAKEMAKE_STORAGE_S3_ENDPOINT_URL": store.address,
            "SNAKEMAKE_STORAGE_S3_ACCESS_KEY": CREDENTIALS["AWS_ACCESS_KEY_ID"],
            "SNAKEMAKE_STORAGE_S3_SECRET_KEY": CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            "NO_PROXY": "127.0.0.1",
        }

    def snakemake(self, *words, target=RESULT, **environment):
        return self.project.snakemake(*STORED, *words, "--", target, **(self.variables | environment))


def jobs_of(ran):
    """The rules that ran, in order."""
    assert ran.rc == 0, ran.text
    return [line.split()[2].rstrip(":") for line in ran.text.splitlines() if " done    " in line]


def middle_with(learning_rate):
    params = tiny_params()
    params["experiments"]["ed"]["stages"]["middle"]["learning_rate"] = learning_rate
    return params


@pytest.fixture
def host(tmp_path, s3_store):
    """A host with an empty clone, and an empty store."""
    return Host(make_project(tmp_path / "first", tiny_params()), s3_store)


@pytest.fixture
def filled(host, finished_project, s3_store):
    """The same with the store of a finished run: what is there, whoever sent it."""
    for path in finished_project.files("artifacts", "results"):
        s3_store.write(f"{PREFIX}/{path}", (finished_project.root / path).read_bytes())
    return host


def test_what_a_run_puts_into_the_store_equals_a_local_run_and_another_host_goes_on_from_there(
    host, finished_project, s3_store, tmp_path
):
    assert len(jobs_of(host.snakemake())) == 16
    stored = {key.removeprefix(f"{PREFIX}/") for key in s3_store.keys}
    made = {path for path in finished_project.files("artifacts", "results") if path != "results/index.html"}
    assert stored == made, "logs stay on the host"
    for path in made:
        fetched = tmp_path / "fetched" / path
        fetched.parent.mkdir(parents=True, exist_ok=True)
        fetched.write_bytes(s3_store.read(f"{PREFIX}/{path}"))
        assert without_cost(fetched) == without_cost(finished_project.root / path), path
    assert not [path for path in host.project.files(".snakemake/storage") if path.endswith((".h5", ".safetensors"))]
    assert "Nothing to be done" in host.snakemake().text

    other = Host(make_project(tmp_path / "second", middle_with(0.05)), s3_store)
    assert jobs_of(other.snakemake()) == ["run_stage", "evaluate", "result"]
    assert "Nothing to be done" in other.snakemake().text
    assert jobs_of(host.snakemake()) == ["run_stage", "evaluate", "result"], "the first host has the earlier knobs"


def test_a_host_that_has_made_nothing_trusts_records_not_dates(filled):
    assert "Nothing to be done" in filled.snakemake().text
    filled.project.write_params(middle_with(0.05))
    dry = filled.snakemake("--dry-run", *AS_SNAKEMAKE_SAYS).text
    assert "Rules with provenance triggered jobs: run_stage" in dry
    filled.project.write_params(tiny_params())
    assert "Nothing to be done" in filled.snakemake().text, "and knobs that were set back fit again"


def test_a_damaged_artifact_of_the_store_is_refused_by_the_step_that_reads_it(filled, s3_store):
    path = "artifacts/teachers/digits/specialists/primary.safetensors"
    weights = s3_store.read(f"{PREFIX}/{path}")
    s3_store.write(f"{PREFIX}/{path}", weights[:-1] + bytes([weights[-1] ^ 1]))
    evaluation = "artifacts/teacher_evaluations/digits/specialists/primary.json"
    ran = filled.snakemake("--force", target=evaluation)
    assert ran.rc == 1
    assert f"{path}: " in ran.text, "the step's own line is shown"
    assert "digest" in ran.text


def test_dvc_is_left_out_and_a_run_without_the_store_has_folders_of_its_own(filled):
    filled.snakemake()
    assert (filled.root / "artifacts").is_symlink()
    (filled.root / ".dvc").mkdir()
    (filled.root / "dvc.yaml").write_text("stages: {}\n")
    (filled.root / ".git").mkdir()
    told = filled.snakemake(EDPIPE_DVC=None).said
    assert told == [f"edpipe: DVC is left out: artifacts lie in s3://{BUCKET}/{PREFIX}"]
    local = filled.project.snakemake("--dry-run", *AS_SNAKEMAKE_SAYS, "--", RESULT)
    assert not (filled.root / "artifacts").exists()
    assert "pack_dataset" in local.text


def test_a_folder_with_artifacts_is_not_hidden_by_a_store(finished_project, s3_store, tmp_path):
    host = Host(copy_of(finished_project, tmp_path / "made"), s3_store)
    ran = host.snakemake()
    assert ran.rc == 2
    assert ran.said == [
        "edpipe: artifacts: is there already, but Snakemake's default storage is to hold the artifacts; use another "
        "clone, or move artifacts away"
    ]


def test_a_store_that_refuses_is_one_line(filled, s3_store):
    s3_store.requests.refused_after = s3_store.requests.total() + 10
    ran = filled.snakemake()
    assert ran.rc == 2
    (line,) = ran.said
    assert "the store does not answer: " in line
    assert line.endswith("; look at its address, your network and your rights")
    assert "Traceback" not in ran.text
