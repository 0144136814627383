"""Hundreds of stories of the imaginary site, one per seed: whatever happens, everything comes to its one good end.

`pytest tests/world --seed 1234` plays one story again; `pytest tests/world --seeds 20000` looks for new ones.
"""

from collections import Counter

from tests.world.actors import Fleet, Physician, Source
from tests.world.laws import Watchful
from tests.world.world import COMPONENTS, Weather, World, lines

LONGEST = 400.0
"""How long, in imaginary seconds, the site may take to come to rest in fine weather."""
TROUBLES = (
    *("restart", "second attempt", "hole", "result of an older attempt", "Stale", "NoTask", "TaskFailed", "CancelRequest"),
    *("retried", "correction", "StoredBefore", "FencePending", "FenceReached", "FenceBroken", "Release"),
)


def weather_of(world: World) -> Weather:
    """Each story has its own climate: often one plague rages alone, sometimes all do."""
    dice = world.random
    return Weather(
        lost=dice.choice((0.0, 0.01, 0.1, 0.35)),
        doubled=dice.choice((0.0, 0.05, 0.3)),
        late=dice.choice((0.0, 0.02, 0.2)),
        crash=dice.choice((0.0, 0.003, 0.01, 0.03)),
        outage=dice.choice((0.0, 0.3)),
        stall=dice.choice((0.0, 0.0, 0.005, 0.02)),
        misfortune=dice.choice((0.0, 0.2, 0.7, 0.95)),
    )


def play(seed: int) -> Watchful:
    """Let one story happen; AssertionError tells it when something is wrong."""
    world = World(seed)
    world.laws = laws = Watchful(world)
    try:
        world.weather = weather_of(world)
        for name in COMPONENTS:
            world.start(name)
        sources = [Source(world, scan) for scan in ("a", "b")[: world.random.randint(1, 2)]]
        for pipeline in "pq":
            Fleet(world, pipeline, world.random.randint(1, 3))
            Physician(world, pipeline)
        for _ in range(world.random.choice((0, 0, 1, 3))):
            victim, seconds = world.random.choice(COMPONENTS), world.random.uniform(1, 8)
            world.at(world.random.uniform(0, 12), lambda victim=victim, seconds=seconds: world.cut(victim, seconds))
        world.run(world.random.uniform(5, 20))
        world.settle()
        while world.now < LONGEST and (laws.left() or any(source.left for source in sources) or world.now < 33):
            world.run(world.now + 2.0)
        assert not laws.left(), "the site does not come to rest: " + "; ".join(laws.left())[:2000]
        laws.judge(sources)
        laws.judge_silence(10.0)
    except Exception as error:
        raise AssertionError(
            f"seed {seed} at {world.now:.4f} s: {type(error).__name__}: {error}\n{lines(world.story)}\n"
            f"play it again: pytest tests/world --seed {seed}"
        ) from error
    laws.seen["restart"] = sum(process.boot - 1 for process in world.processes.values())
    return laws


def test_story(story_seed: int) -> None:
    assert not play(story_seed).left(), "something is still under way"


def test_the_stories_tell_something() -> None:
    """A world in which nothing goes wrong would prove nothing."""
    seen = sum((play(seed).seen for seed in range(30)), Counter[str]())
    assert not [what for what in TROUBLES if not seen[what]]


def test_a_seed_tells_the_same_story_twice() -> None:
    assert play(7).seen == play(7).seen
