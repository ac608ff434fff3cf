"""Trains the toy in two processes of four devices each, in the folder given;
with --sigterm until one of them is told to stop.

Without further arguments it starts the two, which are this script again.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

DEVICES = "--xla_force_host_platform_device_count="


def start(folder: str, *options: str) -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    root, flags = str(Path(__file__).parents[2]), os.environ["XLA_FLAGS"].replace(f"{DEVICES}8", f"{DEVICES}4")
    environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": root}
    both = [
        subprocess.Popen([sys.executable, __file__, folder, address, str(rank), *options], env=environment)
        for rank in range(2)
    ]
    try:
        return max(process.wait(timeout=200) for process in both)
    finally:
        for process in both:
            process.kill()


def join(folder: str, address: str, rank: int, sigterm: bool) -> None:
    import jax

    jax.distributed.initialize(address, num_processes=2, process_id=rank)
    from tests.training import toy
    from training.launch import LaunchConfig, joined
    from training.loop import LoopConfig, train
    from training.mesh import MeshConfig, make_mesh
    from training.optimizer import OptimizerConfig, make_optimizer
    from training.telling import show

    assert jax.process_count() == 2 and len(jax.local_devices()) == 4
    steps = 1000 if sigterm else 6
    config = LoopConfig(steps=steps, batch_size=16, accumulate=2, log_every=2, eval_every=3, save_every=3)
    if sigterm and rank == 1:
        threading.Thread(target=terminate_after_a_step, args=[Path(folder)], daemon=True).start()
    show()
    joined(LaunchConfig())
    tx = make_optimizer(OptimizerConfig(learning_rate=1e-2, warmup=2), 6)
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    trained = train(toy.training(config, tx), config, mesh, Path(folder))
    assert (int(trained.state.step) == steps) is trained.finished is not sigterm


def terminate_after_a_step(folder: Path) -> None:
    while not (folder / "metrics.jsonl").exists() or '"step": 2' not in (folder / "metrics.jsonl").read_text():
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    folder, *rest = sys.argv[1:]
    if not rest or rest == ["--sigterm"]:
        sys.exit(start(folder, *rest))
    join(folder, rest[0], int(rest[1]), sigterm="--sigterm" in rest)
