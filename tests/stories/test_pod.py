"""The manifest of docs/kubernetes.md: its structure, and its commands, run here as a pod would run them.

Steps are played by stand_in_command_line.py; DVC's remote is s3_server.py, git's a folder.
"""

import re
import signal
import subprocess
from pathlib import Path

import pytest
import yaml
from dvc_stories import EVERY_STEP, Folder, copy_compiled, said, start, wait_for
from s3_server import BUCKET

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/kubernetes.md").read_text(encoding="utf-8")
(MANIFEST,) = (yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
CLAIM, JOB = MANIFEST["items"]
POD = JOB["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]


def test_the_manifest_is_one_claim_and_one_job_of_one_container():
    assert (MANIFEST["apiVersion"], MANIFEST["kind"]) == ("v1", "List")
    assert (CLAIM["apiVersion"], CLAIM["kind"]) == ("v1", "PersistentVolumeClaim")
    assert (JOB["apiVersion"], JOB["kind"]) == ("batch/v1", "Job")
    assert POD["restartPolicy"] in ("OnFailure", "Never"), "what a Job may have"
    assert POD["terminationGracePeriodSeconds"] > 60


def test_names_in_the_manifest_fit_each_other():
    (volume,) = POD["volumes"]
    (mount,) = CONTAINER["volumeMounts"]
    assert volume["persistentVolumeClaim"]["claimName"] == CLAIM["metadata"]["name"]
    assert mount["name"] == volume["name"]
    assert CONTAINER["workingDir"] == mount["mountPath"]
    (secret,) = CONTAINER["envFrom"]
    assert f"secret `{secret['secretRef']['name']}`" in PAGE


def test_the_container_has_an_image_that_is_built_and_asks_for_as_many_gpus_and_cores_as_it_uses():
    variables = {one["name"]: one["value"] for one in CONTAINER["env"]}
    limits = CONTAINER["resources"]["limits"]
    assert f"--tag {CONTAINER['image']} " in PAGE
    assert (variables["GPUS"], variables["CORES"]) == (limits["nvidia.com/gpu"], limits["cpu"])
    assert all(isinstance(value, str) for value in [*variables.values(), *limits.values()]), "as Kubernetes wants them"


def test_every_variable_of_the_commands_is_set():
    (script,) = CONTAINER["args"]
    own = set(re.findall(r"^\s*(\w+)=", script, re.MULTILINE))
    secret = set(re.findall(r"`([A-Z_]+)`", PAGE[: PAGE.index("```yaml")]))
    assert set(re.findall(r"\$(\w+)", script)) - own <= {one["name"] for one in CONTAINER["env"]} | secret
    assert CONTAINER["command"] == ["sh", "-ec"]


class Pod:
    """The container's commands in a folder that outlives them, as the claim does."""

    def __init__(self, folder, origin):
        self.folder, self.origin = folder, origin
        folder.mkdir()
        self.clone, self.log = Folder(folder / "clone"), folder / "log"

    def start(self):
        variables = {one["name"]: one["value"] for one in CONTAINER["env"]}
        variables |= {"REPOSITORY": str(self.origin), "CORES": "2", "TARGET": "results/kd.html results/ed.html"}
        with self.log.open("wb") as stream:
            return subprocess.Popen(
                [*CONTAINER["command"], *CONTAINER["args"]],
                cwd=self.folder,
                env=self.clone.environment | variables,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )

    def run(self):
        """Runs it to its end: its exit code, and the steps that were computed."""
        self.clone.runs.unlink(missing_ok=True)
        code = self.start().wait()
        steps = sorted(self.clone.runs.read_text().splitlines()) if self.clone.runs.exists() else []
        return code, steps, self.log.read_text()


@pytest.fixture
def pod(tmp_path, s3_store):
    """A pod, a repository that it may push to, and a remote on S3."""
    pytest.importorskip("dvc_s3")
    pytest.importorskip("snakemake")
    author = start(tmp_path / "author", "copy")
    author.edit("tracked: [ce, kd, ed]", "tracked: [kd, ed]")
    author.call("edpipe", "tracked_jobs")
    author.call("dvc", "remote", "add", "--default", "store", f"s3://{BUCKET}/project")
    author.call("dvc", "remote", "modify", "store", "endpointurl", s3_store.address)
    author.call("dvc", "remote", "modify", "store", "verify", "true")
    author.git_commit()
    origin = tmp_path / "origin.git"
    author.call("git", "clone", "--quiet", "--bare", ".", str(origin))
    return Pod(tmp_path / "claim", origin)


ALL = [step for step in EVERY_STEP if "experiment ce" not in step]


@pytest.mark.slow
def test_a_pod_makes_and_pushes_and_a_second_one_and_a_colleague_compute_nothing(pod, tmp_path):
    code, steps, output = pod.run()
    assert (code, steps) == (0, ALL), output
    assert pod.run()[:2] == (0, []), "the same pod again"
    other = Pod(tmp_path / "other", pod.origin)
    assert other.run()[:2] == (0, []), "a pod with an empty claim"
    pod.clone.call("git", "clone", "--quiet", str(pod.origin), str(tmp_path / "colleague"))
    colleague = Folder(tmp_path / "colleague")
    copy_compiled(pod.clone.root / "edpipe", colleague.root / "edpipe")
    colleague.call("dvc", "pull")
    assert colleague.snakemake() == []


@pytest.mark.slow
def test_a_pod_that_is_told_to_end_ends_its_jobs_and_the_next_one_goes_on(pod):
    assert subprocess.run(["git", "clone", "--quiet", pod.origin, pod.clone.root]).returncode == 0
    (pod.clone.root / "waiting").write_text("run_stage --experiment ed --seed 0 --stage primary")
    running = pod.start()
    wait_for(pod.clone.root / "started")
    running.send_signal(signal.SIGTERM)
    assert running.wait() == 143, pod.log.read_text()
    for name in ("waiting", "started"):
        (pod.clone.root / name).unlink()
    code, steps, output = pod.run()
    assert code == 0, output
    assert "run_stage --experiment ed --seed 0 --stage primary" in steps
    assert "pack_dataset --dataset digits" not in steps, "finished before"


@pytest.mark.slow
def test_a_failed_job_ends_the_pod_after_the_rest_was_pushed(pod, s3_store):
    assert subprocess.run(["git", "clone", "--quiet", pod.origin, pod.clone.root]).returncode == 0
    (pod.clone.root / "failing").write_text("evaluate --experiment kd")
    code, _, output = pod.run()
    assert code == 1, output
    assert "this step is told to fail" in " ".join(said(output))
    assert s3_store.keys
