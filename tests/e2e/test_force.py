"""FORCE=1 goes on with what may be another run, and the record says so."""

from tests.e2e.conftest import CHECKPOINT, PROBE, TestHouse


def test_forcing_a_run_to_end_elsewhere_is_in_its_record(plain_house: TestHouse) -> None:
    """The host cannot know whether a learning rate depends on it; without FORCE the inside refuses what does."""
    house = plain_house
    project = PROBE + "trainer: projects.probe.trainer:Probe\nresume: [python, -m, projects.probe.train]\n"
    (house.root / "projects/probe/project.yml").write_text(project)
    (house.root / "projects/probe/configs/default.yml").write_text("n_iterations: 10\nvalue: 1\n")
    house.code(CHECKPOINT)
    house.train("--engine", "local")
    run = house.only_run()
    house.run("resume", "--run", str(run), "--set", "n_iterations=24 print_iterations=5")
    house.run("resume", "--run", str(run), "--set", "n_iterations=48", "--force")
    house.run("resume", "--run", str(run), "--set", "n_iterations=48 print_iterations=9", "--force")
    assert house.manifest(run, 2)["reproducible"]
    assert house.manifest(run, 3)["not_reproducible_because"] == [
        "FORCE=1: n_iterations was 24 and is 48, whatever depends on where the training ends"
    ]
    assert house.manifest(run, 4)["reproducible"], "nothing was forced in it"
