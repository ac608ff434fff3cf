"""One process of a job that does nothing but live: RANK PORT, and how it ends: kill, stop, error or, with another, it
waits to be ended. The signs of life are looked for two seconds long."""

import os
import signal
import sys
import time

from training.command import run
from training.launch import LaunchConfig, joined


def main() -> None:
    rank, port, how = sys.argv[1:]
    job = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": rank}
    os.environ |= job
    joined(LaunchConfig(distributed=True, silence=2))
    print("joined", flush=True)
    time.sleep(0.5)
    match how:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "error":
            raise ValueError("no good")
    time.sleep(120)


if __name__ == "__main__":
    run(main)
