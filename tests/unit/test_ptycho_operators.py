"""The operators of ptychography against their formulas written out, and as adjoints; on a strict array module as well."""

import functools

import array_api_strict
import numpy as np
import pytest

from beamtide.errors import BadInput
from cluster_side.modalities.context import Alone
from cluster_side.modalities.ptychography import quality, recipe
from cluster_side.modalities.ptychography.engines import operators as op
from cluster_side.modalities.ptychography.engines import position_correction, prediction, subpixel
from cluster_side.modalities.ptychography.engines.backend import Backend, _scipy, numpy_backend
from cluster_side.modalities.ptychography.engines.bounds import Bounds, bound_object, bound_probe, orthogonal
from cluster_side.modalities.ptychography.engines.dm_raar import Projection
from cluster_side.modalities.ptychography.engines.pie_lsqml import Batched, Rule
from cluster_side.modalities.ptychography.engines.propagators import far_field, near_field
from cluster_side.modalities.ptychography.engines.state import Bench, Frames, ReconstructionState, members

RNG = np.random.default_rng(5)
AT = [(0, 0), (3, 1), (4, 5)]


def waves(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) + 1j * RNG.standard_normal(shape)).astype(np.complex64)


def test_patches_and_their_adjoint() -> None:
    whole, parts = waves(12, 13), waves(3, 8, 8)
    back = np.zeros_like(whole)
    op.add_patches(back, AT, parts)
    np.testing.assert_array_equal(op.patches(np, whole, AT, (8, 8))[2], whole[4:12, 5:13])
    assert np.vdot(parts, op.patches(np, whole, AT, (8, 8))) == pytest.approx(np.vdot(back, whole), rel=1e-5)
    everywhere = np.zeros(whole.shape, np.float32)
    op.add_everywhere(everywhere, AT, np.ones((8, 8), np.float32))
    assert everywhere.sum() == 3 * 64
    assert everywhere[5, 6] == 3


def test_bins_and_their_adjoint() -> None:
    fine, coarse = RNG.random((2, 8, 8)), RNG.random((2, 4, 4))
    assert op.binned(np, fine, 2)[1, 0, 3] == pytest.approx(fine[1, 0:2, 6:8].sum())
    assert (op.binned(np, fine, 2) * coarse).sum() == pytest.approx((fine * op.spread_out(np, coarse, 2)).sum())


def test_modulus_replaces_amplitudes_and_leaves_masked_pixels() -> None:
    found, measured = waves(2, 3, 4, 4), RNG.random((2, 4, 4)).astype(np.float32)
    good = np.ones((4, 4), bool)
    good[1, 2] = False
    modelled = (np.abs(found) ** 2).sum(axis=1)
    np.testing.assert_allclose(op.intensity(np, found), modelled, rtol=1e-5)
    factor, misfit = op.modulus(np, modelled, measured, good.astype(np.float32))
    projected = (np.abs(found * factor[:, None]) ** 2).sum(axis=1)
    np.testing.assert_allclose(projected[:, good], measured[:, good] ** 2, rtol=1e-4)
    np.testing.assert_allclose(projected[:, ~good], modelled[:, ~good], rtol=1e-6)
    assert misfit == pytest.approx(((np.sqrt(modelled) - measured) ** 2)[:, good].sum(), rel=1e-5)


def test_numerators_are_sums_over_modes_and_positions() -> None:
    probe, parts, found = waves(2, 4, 4), waves(3, 4, 4), waves(3, 2, 4, 4)
    np.testing.assert_allclose(op.onto_object(np, probe, found)[1], (probe.conj() * found[1]).sum(axis=0), rtol=1e-5)
    np.testing.assert_allclose(op.onto_probe(np, parts, found)[1], (parts.conj() * found[:, 1]).sum(axis=0), rtol=1e-5)
    whole = waves(12, 13)
    expected = (np.abs(op.patches(np, whole, AT, (8, 8))) ** 2).sum(axis=0)
    np.testing.assert_allclose(op.object_power(op.squared(np, whole), AT, (8, 8)), expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["far", "near"])
def test_propagators_are_unitary_but_for_their_gain(kind: str) -> None:
    backend, start = numpy_backend(), waves(2, 1, 16, 16)
    propagator = far_field(backend, (16, 16)) if kind == "far" else near_field(backend, (16, 16), (0.03, 0.05))
    there = propagator.forward(start.copy())
    assert np.linalg.norm(there) ** 2 == pytest.approx(propagator.gain * np.linalg.norm(start) ** 2, rel=1e-5)
    np.testing.assert_allclose(propagator.backward(there) / propagator.gain, start, atol=1e-5)


def test_the_near_field_of_a_wave_is_fresnels() -> None:
    """A Gaussian beam of waist w spreads to w sqrt(1 + (z / z_R)²) over z, in pixels: z / z_R = 1 / (pi F w²)."""
    size, waist, fresnel = 128, 6.0, 0.01
    y, x = np.mgrid[:size, :size] - size // 2
    beam = np.exp(-(y * y + x * x) / waist**2).astype(np.complex64)[None, None]
    there = np.abs(near_field(numpy_backend(), (size, size), (fresnel, fresnel)).forward(beam)[0, 0]) ** 2
    width = 2 * np.sqrt((there * y**2).sum() / there.sum())
    assert width == pytest.approx(waist * np.sqrt(1 + (1 / (np.pi * fresnel * waist**2)) ** 2), rel=1e-2)


def test_fftw_and_scipy_agree() -> None:
    start = waves(3, 2, 32, 32)
    backend = numpy_backend()
    np.testing.assert_allclose(backend.fft2(start.copy()), _scipy("fft2", "backward")(start.copy()), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(backend.ifft2(start.copy()), _scipy("ifft2", "forward")(start.copy()), rtol=1e-3, atol=1e-3)


def test_a_frame_says_where_it_was_measured() -> None:
    """The correction of a small move is the probe times the object's slope: the least-squares answer finds the move."""
    bench = Bench(numpy_backend(), far_field(numpy_backend(), (32, 32)), Alone())
    y, x = np.mgrid[:32, :32]
    parts = (np.sin(0.4 * y)[None] + 1j * np.cos(0.3 * x + 0.2 * y)[None]).astype(np.complex64)
    probe = np.exp(-((y - 16.0) ** 2 + (x - 16.0) ** 2) / 50).astype(np.complex64)[None]
    move = np.array([0.2, -0.3])
    asked = sum(step * probe * op.slope(np, parts, axis) for step, axis in zip(move, (-2, -1), strict=True))
    np.testing.assert_allclose(position_correction.displacements(bench, probe, parts, asked[:, None])[0], move, atol=1e-4)


def test_a_probe_between_pixels_is_the_probe_moved() -> None:
    backend = numpy_backend()
    bench = Bench(backend, far_field(backend, (32, 32)), Alone())
    y, x = np.mgrid[:32, :32]

    def beam(row: float, column: float) -> np.ndarray:
        return np.exp(-((y - row) ** 2 + (x - column) ** 2) / 20).astype(np.complex64)

    ramp = subpixel.ramps(bench, np.array([[0.3, -0.4]]), (32, 32))
    found = subpixel.moved(bench, subpixel.spectrum_of(bench, beam(16, 15)[None]), ramp)
    np.testing.assert_allclose(found[0, 0], beam(16.3, 14.6), atol=1e-4)
    parts, others = waves(1, 32, 32), waves(1, 1, 32, 32)
    there = np.vdot(parts[:, None] * found, others)
    back = np.vdot(beam(16, 15)[None], subpixel.learned_by_probe(bench, parts, others, ramp))
    assert there == pytest.approx(back, rel=1e-4)


def test_limits_hold() -> None:
    whole = waves(6, 6)
    assert np.abs(bound_object(np, whole, Bounds(amplitude=(0.5, 1.0)))).max() <= 1 + 1e-5
    assert (bound_object(np, whole, Bounds(object_support=np.zeros((6, 6), np.float32))) == 1).all()
    probe = bound_probe(np, waves(2, 6, 6), Bounds(probe_support=np.eye(6, dtype=np.float32), probe_power=7.0))
    assert (np.abs(probe) ** 2).sum() == pytest.approx(7.0, rel=1e-5)
    assert probe[0, 0, 1] == 0


def test_orthogonal_modes_are_the_same_mixed_state() -> None:
    probe = waves(3, 8, 8)
    modes = orthogonal(numpy_backend(), probe)
    flat = modes.reshape(3, -1)
    overlap = np.abs(flat.conj() @ flat.T)
    assert (np.diag(overlap)[:-1] >= np.diag(overlap)[1:]).all()
    assert np.abs(overlap - np.diag(np.diag(overlap))).max() < 1e-3 * overlap.max()
    np.testing.assert_allclose((np.abs(modes) ** 2).sum(axis=0), (np.abs(probe) ** 2).sum(axis=0), rtol=1e-4)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("part", ["whole", "half"])
def test_ranks_share_out_every_batch(size: int, part: str) -> None:
    for total, length in ((23, 5), (24, 24), (7, 16)):
        which = np.arange(total) if part == "whole" else np.sort(np.random.default_rng(3).permutation(total)[::2])
        everyone = [members(which, total, rank, size) for rank in range(size)]
        assert sorted(np.concatenate([one.own for one in everyone])) == list(which)
        alone = members(which, total, 0, 1).own
        for number, first in enumerate(range(0, len(which), length)):
            mine = [one.own[one.batches(length)[number]] for one in everyone]
            assert sorted(np.concatenate(mine)) == sorted(alone[first : first + length])
        for rank, one in enumerate(everyone):
            assert set(one.own) <= set(members(np.arange(total), total, rank, size).own), "a half needs frames of other ranks"


def test_rings_of_equal_and_of_unlike_objects() -> None:
    one, other = waves(64, 64), waves(64, 64)
    assert quality.ring_correlation(one, one).crossing == 0.5
    assert quality.ring_correlation(one, other).crossing < 0.06


def test_alignment_undoes_shift_ramp_and_phase() -> None:
    y, x = np.mgrid[:96, :96]
    one = np.exp(1j * np.sin(0.31 * y) * np.cos(0.23 * x + 0.002 * y * x))
    other = quality.shifted(one, (1.4, -2.3)) * quality.ramp((96, 96), (0.02, -0.013)) * np.exp(0.7j)
    middle = slice(20, 76)
    level = quality.without_ramp(one)[0]
    flat, _ = quality.without_ramp(other)
    difference = np.abs(quality.aligned(level, flat) - level)[middle, middle]
    assert np.median(difference) < 0.05
    _, slopes = quality.without_ramp(quality.ramp((96, 96), (0.02, -0.013)))
    assert slopes == pytest.approx((0.02, -0.013), abs=1e-6)
    assert abs(np.angle(flat.sum())) < 1e-6


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("DM 100 -> LSQML 50", [("DM", 100, 1.0, None), ("LSQML", 50, 1.0, None)]),
        ("RAAR(0.9) 5 → rPIE(0.1, batch 4) 3", [("RAAR", 5, 0.9, None), ("rPIE", 3, 0.1, 4)]),
        ("epie 7", [("ePIE", 7, 1.0, None)]),
    ],
)
def test_a_recipe_is_read(text: str, steps: list[tuple[str, int, float, int | None]]) -> None:
    assert recipe.parse(text) == tuple(recipe.RecipeStep(*step) for step in steps)


@pytest.mark.parametrize(
    "text", ["", "DM", "DM 0", "FOO 3", "DM 5 -> ", "DM(0.5) 3", "RAAR(2) 3", "LSQML(batch 0) 3", "DM 9999999"]
)
def test_a_recipe_that_means_nothing_is_named(text: str) -> None:
    with pytest.raises(BadInput, match="recipe: "):
        recipe.parse(text)


def strict_backend() -> Backend:
    """A module that knows nothing but the array API standard: what is not in it is an AttributeError."""
    xp = array_api_strict

    def transform(name: str, norm: str, array: object) -> object:
        return getattr(xp.fft, name)(array, axes=(-2, -1), norm=norm)

    forward, inverse = functools.partial(transform, "fftn", "backward"), functools.partial(transform, "ifftn", "forward")
    return Backend("strict", xp, forward, inverse, np.asarray, 1 << 16)


def small_problem(backend: Backend) -> tuple[Bench, Frames, ReconstructionState]:
    bench = Bench(backend, far_field(backend, (8, 8)), Alone())
    rng = np.random.default_rng(1)
    amplitudes = backend.array(rng.random((6, 8, 8)).astype(np.float32) * 8)
    good = np.ones((8, 8), bool)
    good[2, 3] = False
    frames = Frames(amplitudes, backend.array(good.astype(np.float32)), float(6 * 64), members(np.arange(6), 6, 0, 1))
    positions = rng.uniform(1, 5, (6, 2))
    probe = (rng.standard_normal((2, 8, 8)) + 1j * rng.standard_normal((2, 8, 8))).astype(np.complex64)
    return (
        bench,
        frames,
        ReconstructionState(
            backend.array(np.ones((16, 16), np.complex64)),
            backend.array(probe),
            positions.copy(),
            positions.copy(),
            backend.array(np.ones(6)),
            backend.array(np.zeros((8, 8))),
        ),
    )


@pytest.mark.parametrize("engine", ["projection", "pie", "lsq"])
def test_engines_use_nothing_but_the_array_standard(engine: str) -> None:
    """What runs on a strict array module and gives NumPy's numbers runs on any other; this stands in where there is no GPU."""
    found = []
    for backend in (numpy_backend(), strict_backend()):
        bench, frames, state = small_problem(backend)
        if engine == "projection":
            running: Projection | Batched = Projection(bench, frames, state, 0.8)
        else:
            running = Batched(bench, frames, Rule("pie" if engine == "pie" else "lsq", 3, 0.1, move_after=0, bound=2.0))
        for _ in range(3):
            running.iterate(state, Bounds(amplitude=(0.0, 2.0)))
        found.append((np.asarray(state.object), np.asarray(state.probe), state.positions, state.errors))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


def test_misfits_are_those_of_the_formula_on_any_array_module() -> None:
    found = []
    for backend in (numpy_backend(), strict_backend()):
        bench, frames, state = small_problem(backend)
        state.flux = None
        there = prediction.misfits(bench, frames, state, between=False)
        mean = prediction.mean_of(bench, frames)
        others = prediction.misfits(bench, frames, state, between=True), prediction.misfits_of_mean(bench, frames, state, mean)
        state.flux = backend.array(np.ones(6))
        fitted = prediction.misfits(bench, frames, state, between=False), prediction.misfits_of_mean(bench, frames, state, mean)
        assert (fitted[0] <= there + 1e-6).all(), "an exposure's flux may be what fits best"
        found.append((there, *others, *fitted))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4)
    bench, frames, state = small_problem(numpy_backend())
    for number in range(6):
        wave = np.fft.fft2(state.probe)  # the object is vacuum
        modelled = np.sqrt((np.abs(wave) ** 2).sum(axis=0))
        good, measured = np.asarray(frames.good) > 0, frames.amplitudes[number]
        assert found[0][0][number] == pytest.approx(((modelled - measured)[good] ** 2).sum() / 64, rel=1e-4)
        average = np.asarray(frames.amplitudes).mean(axis=0)
        assert found[0][2][number] == pytest.approx(((average - measured)[good] ** 2).sum() / 64, rel=1e-4)


def test_cupy_gives_numpys_numbers() -> None:
    cupy = pytest.importorskip("cupy", reason="no CuPy here: the array-API test above stands in for it")
    if not cupy.cuda.is_available():
        pytest.skip("CuPy finds no GPU: the array-API test above stands in for it")
    from cluster_side.modalities.ptychography.engines.backend import cupy_backend

    found = []
    for backend in (numpy_backend(), cupy_backend()):
        bench, frames, state = small_problem(backend)
        running = Batched(bench, frames, Rule("lsq", 3, move_after=0, bound=2.0))
        for _ in range(3):
            running.iterate(state, Bounds())
        found.append(np.asarray(backend.to_host(state.object)))
    assert np.linalg.norm(found[0] - found[1]) <= 1e-3 * np.linalg.norm(found[0])
