"""The verbs that look at what launches have left behind, end it, carry it away or bring it back."""

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from runner.host.cli.console import agreed, engine_for, house_here, needed, say


def ls(arguments: Namespace) -> int:
    """List runs: state, score, length, name."""
    from runner.host.pages import terminal
    from runner.host.verbs import runs

    house = house_here()
    rows = runs.listing(house, arguments.project)
    print(json.dumps(rows, indent=2) if arguments.json else terminal.run_table(rows))
    return 0


def show(arguments: Namespace) -> int:
    """Show everything about one run: state, inputs, environment, scores, last lines."""
    from runner.host.pages import terminal
    from runner.host.verbs import runs

    house = house_here()
    facts = runs.describe(house, needed(arguments, "run"), arguments.project)
    print(json.dumps(facts, indent=2) if arguments.json else terminal.run_page(facts))
    return 0


def logs(arguments: Namespace) -> int:
    """Print the log of a run; with --follow until it ends."""
    from runner.host.verbs import runs

    house = house_here()
    for chunk in runs.log(house, needed(arguments, "run"), arguments.project, follow=arguments.follow):
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
    return 0


def stop(arguments: Namespace) -> int:
    """Ask a run to stop; its end is recorded."""
    from runner.host.verbs import runs

    print(runs.stop(house_here(), needed(arguments, "run"), arguments.project, now=arguments.now))
    return 0


def rm(arguments: Namespace) -> int:
    """Delete a run and its evaluations, after asking."""
    from runner.host.verbs import runs

    house = house_here()
    folders = runs.removable(house, needed(arguments, "run"), arguments.project)
    if not arguments.yes and not agreed("Delete " + " and ".join(map(str, folders)) + "?"):
        say("nothing deleted")
        return 1
    for folder in runs.remove(folders):
        print(folder)
    return 0


def follow(arguments: Namespace) -> int:
    """Follow a detached run silently and record its end (DETACH=1 starts this by itself)."""
    from runner.host.verbs import runs

    return runs.follow_detached(house_here(), Path(needed(arguments, "run")), say)


def compare(arguments: Namespace) -> int:
    """Lay runs side by side: what differs in their inputs, their scores, their curves (terminal and PNG)."""
    from runner.host.pages import compare as compare_page
    from runner.host.verbs import runs
    from runner.host.verbs.compare import compare_runs, keep_comparison

    house = house_here()
    names = needed(arguments, "runs").split()
    comparison = compare_runs(house, [runs.find(house, name, arguments.project) for name in names])
    facts = compare_page.to_json(comparison)
    print(json.dumps(facts, indent=2) if arguments.json else compare_page.page(comparison))
    folder = keep_comparison(house, comparison, facts)
    say(f"\nwrote  {folder}")
    return 0


def export(arguments: Namespace) -> int:
    """Write a run to one file: record, source, config, checkpoints, and its image or wheels."""
    from runner.host.pages import terminal
    from runner.host.verbs import runs
    from runner.host.verbs.export import ExportRequest, export_run

    house = house_here()
    run = needed(arguments, "run")
    arguments.engine = runs.engine_kind(house, run, arguments.project)
    request = ExportRequest(
        run=run,
        project=arguments.project,
        file=Path(needed(arguments, "file")).expanduser().absolute(),
        what=getattr(arguments, "with"),
    )
    done = export_run(house, lambda: engine_for(arguments, house), request, say)
    print(f"{done.file}  {terminal.size(done.size)}, {done.files} files, with {done.what}")
    return 0


def import_(arguments: Namespace) -> int:
    """Take a run back from the file that export made; everything is verified before anything is written."""
    from runner.host.verbs.import_run import import_run

    house = house_here()
    arguments.engine = "docker"
    file = Path(needed(arguments, "file")).expanduser().absolute()
    done = import_run(house, lambda: engine_for(arguments, house), file, say)
    print(done.folder)
    say("it was here already, and is the same" if done.was_there else f"next: make eval RUN={done.folder.name}")
    return 0


def release(arguments: Namespace) -> int:
    """Make a checkpoint of a run a model, with a card, that other projects can start from."""
    from runner.host.verbs.release import ReleaseRequest
    from runner.host.verbs.release import release as release_model

    request = ReleaseRequest(
        run=needed(arguments, "run"),
        project=arguments.project,
        name=needed(arguments, "name"),
        checkpoint=arguments.checkpoint or "best",
        version=arguments.version,
    )
    return said_of_model(release_model(house_here(), request))


def model(arguments: Namespace) -> int:
    """Bring weights from outside, a file or an address with its checksum, into models/."""
    from runner.host.verbs.release import bring

    name, source = needed(arguments, "name"), needed(arguments, "source")
    checksum, version = arguments.checksum, arguments.version
    return said_of_model(bring(house_here(), name, source, checksum=checksum, version=version))


def said_of_model(made: Any) -> int:
    """Where a model lies, and how to start from it."""
    print(made.folder)
    say(f"start from it with the config key  init_from: {made.reference}")
    return 0
