"""The verbs that launch: each parses, calls, and prints what came of it."""

import json
import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from runner.contract.layout import RunPaths
from runner.host.cli.console import caller_here, engine_for, house_here, needed, overrides_of, say, verify_full
from runner.host.house import House

LAUNCH_OPTIONS = ("gpus", "engine", "dry_run", "json")


def train(arguments: Namespace) -> int:
    """Train one config in a fresh container."""
    from runner.host.verbs.train import TrainRequest, plan_train

    house = house_here()
    request = TrainRequest(
        project=needed(arguments, "project"),
        experiment=arguments.config or "default",
        overrides=overrides_of(arguments),
        tag=arguments.tag,
        data=arguments.data,
        gpus=arguments.gpus,
        mode=arguments.mode or "prod",
        full=verify_full(arguments),
        dry_run=arguments.dry_run,
    )
    return run_launch(arguments, house, lambda engine, caller: plan_train(house, engine, request, caller, say))


def evaluate(arguments: Namespace) -> int:
    """Evaluate a run's checkpoint in a fresh container; writes only under the outputs root."""
    from runner.host.verbs.evaluate import EvaluateRequest, plan_evaluate
    from runner.host.verbs.runs import engine_kind

    house = house_here()
    request = EvaluateRequest(
        run=arguments.run or "latest",
        project=arguments.project,
        split=arguments.split or "val",
        checkpoint=arguments.checkpoint or "best",
        data=arguments.data,
        dataset=arguments.dataset,
        gpus=arguments.gpus,
        overrides=overrides_of(arguments),
        full=verify_full(arguments),
        dry_run=arguments.dry_run,
    )
    kind = engine_kind(house, request.run, request.project)
    return run_launch(arguments, house, lambda engine, caller: plan_evaluate(house, engine, request, caller, say), kind)


def resume(arguments: Namespace) -> int:
    """Go on with an interrupted run in the same session, as a new attempt."""
    from runner.host.verbs.resume import ResumeRequest, plan_resume
    from runner.host.verbs.runs import engine_kind

    house = house_here()
    request = ResumeRequest(
        run=arguments.run or "latest",
        project=arguments.project,
        overrides=overrides_of(arguments),
        gpus=arguments.gpus,
        force=arguments.force,
        dry_run=arguments.dry_run,
    )
    kind = engine_kind(house, request.run, request.project)
    return run_launch(arguments, house, lambda engine, caller: plan_resume(house, engine, request, caller, say), kind)


def reproduce(arguments: Namespace) -> int:
    """Run a run again from its inputs/ alone, and say whether the result is the same."""
    from runner.host.launch import launcher
    from runner.host.pages import terminal
    from runner.host.pages import verdict as verdict_page
    from runner.host.verbs import runs
    from runner.host.verbs.reproduce import ReproduceRequest, keep_verdict, plan_reproduce
    from runner.host.verdict.verdict import judge, to_json

    house = house_here()
    request = ReproduceRequest(
        run=arguments.run or "latest",
        project=arguments.project,
        level=arguments.level,
        gpus=arguments.gpus,
        force=arguments.force,
        full=verify_full(arguments),
        dry_run=arguments.dry_run,
    )
    kind = runs.engine_kind(house, request.run, request.project)
    first = runs.find(house, request.run, request.project)
    request = replace(request, run=str(first.folder))
    arguments.engine = arguments.engine or kind
    engine = engine_for(arguments, house)
    plan = plan_reproduce(house, engine, request, caller_here(), say)
    if arguments.dry_run:
        return print_plan(arguments, plan, engine)
    say(terminal.started(plan))
    outcome = launcher.launch(plan, engine, say, to=sys.stderr.buffer if arguments.json else None)
    say(terminal.ended(plan, outcome))
    verdict = judge(first, RunPaths(plan.place.folder), house.cache, level=request.level)
    path = keep_verdict(house, plan.place.folder, verdict)
    print(json.dumps(to_json(verdict), indent=2) if arguments.json else verdict_page.verdict_page(verdict))
    say(f"\nverdict  {path}")
    return 0 if verdict.holds else 1


def shell(arguments: Namespace) -> int:
    """Open a shell in the development container of a project, on the live code."""
    from runner.host.verbs.shell import open_shell

    house = house_here()
    engine = engine_for(arguments, house)
    return open_shell(
        house, engine, needed(arguments, "project"), arguments.gpus or "auto", caller_here(), say, arguments.dry_run
    )


def notebook(arguments: Namespace) -> int:
    """Open JupyterLab in the development container of a project; prints its address."""
    from runner.host.verbs.shell import open_notebook

    house = house_here()
    engine = engine_for(arguments, house)
    project, gpus = needed(arguments, "project"), arguments.gpus or "auto"
    return open_notebook(house, engine, project, gpus, arguments.port, caller_here(), say, arguments.dry_run)


def demo(arguments: Namespace) -> int:
    """The whole road on a fresh machine: engine, image, toy data, train, evaluate."""
    from runner.host.verbs.demo import run_demo

    house = house_here()
    return run_demo(house, arguments.engine or house.engine, say)


def print_plan(arguments: Namespace, plan: Any, engine: Any) -> int:
    """DRY_RUN=1: what would be launched."""
    from runner.host.pages import terminal

    print(
        json.dumps(terminal.plan_facts(plan), indent=2, default=str)
        if arguments.json
        else terminal.plan_page(plan, engine)
    )
    return 0


def run_launch(arguments: Namespace, house: House, plan_for: Callable[[Any, Any], Any], kind: str | None = None) -> int:
    """Plan a launch, carry it out or print it, and say what came of it. `kind` is the engine of the run it goes on from."""
    from runner.host.launch import launcher
    from runner.host.pages import terminal
    from runner.host.verbs import runs

    arguments.engine = arguments.engine or kind
    engine = engine_for(arguments, house)
    plan = plan_for(engine, caller_here())
    if arguments.dry_run:
        return print_plan(arguments, plan, engine)
    if getattr(arguments, "detach", False):
        launcher.start(plan, engine, attach=False)
        runs.follow_in_background(plan)
        print(json.dumps({"folder": str(plan.place.folder)}) if arguments.json else plan.place.folder)
        say(terminal.detached(plan))
        return 0
    say(terminal.started(plan))
    outcome = launcher.launch(plan, engine, say, to=sys.stderr.buffer if arguments.json else None)
    say(terminal.ended(plan, outcome))
    if arguments.json:
        print(json.dumps(terminal.outcome_facts(plan, outcome), indent=2))
    return outcome.exit_code or int(str(outcome.state) != "COMPLETED")  # a deadline may end what then ends well
