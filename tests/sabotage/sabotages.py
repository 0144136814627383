"""One-line sabotages: mistakes that somebody might make, each with the tests that must notice."""

from dataclasses import dataclass

WORLD = "tests/world"
FILED = ("tests/stories/test_filing_story.py",)
DOUBTED = ("tests/unit/test_doubts.py",)
PAYLOADS = ("tests/unit/test_spool_payloads.py",)
RELEASE = ("tests/unit/test_release.py",)
SPOOLED = ("tests/unit/test_spool.py",)
SLURMED = ("tests/slurm/test_faults.py",)
LAWS = ("tests/unit/test_law.py",)
SCALING = ("tests/stories/test_ledger_story.py",)
DEAD = ("tests/unit/test_dead_letter_cores.py",)


@dataclass(frozen=True, slots=True)
class Sabotage:
    """In `function`, put `new` ("": nothing) where `old` stands; one of `tests` must fail. `anchors.py` says how it is found."""

    name: str
    function: str
    old: str
    new: str
    tests: tuple[str, ...] = (WORLD,)


SABOTAGES = (
    Sabotage("law has no cap", "share", "(dict.fromkeys(wishes, 0), cap)", "(dict.fromkeys(wishes, 0), cap + 1)", LAWS),
    Sabotage(
        "a guess starts jobs",
        "decide",
        "0 if demand.expected is None else math.ceil(demand.expected - 1e-09)",
        "math.ceil(arrivals(demand, fleet.cold_start))",
        LAWS,
    ),
    Sabotage(
        "an order is placed without a picture",
        "Planner._start",
        "not self.ledger.known or unclear or pipeline.full or (now - pipeline.cancelled_at < SETTLE)",
        "unclear or pipeline.full or now - pipeline.cancelled_at < SETTLE",
        SCALING,
    ),
    Sabotage(
        "an unclear order is asked for again at once",
        "Planner._start",
        "not self.ledger.known or unclear or pipeline.full or (now - pipeline.cancelled_at < SETTLE)",
        "not self.ledger.known or pipeline.full or now - pipeline.cancelled_at < SETTLE",
        SCALING,
    ),
    Sabotage(
        "orders and cancellations chase each other",
        "Planner._cancel",
        "now - pipeline.surplus_since < (SETTLE if short else VOTE) or now - pipeline.submitted_at < SETTLE",
        "now - pipeline.surplus_since < (SETTLE if short else VOTE)",
        SCALING,
    ),
    Sabotage("an empty answer means no jobs", "Ledger._doubt", "missing <= max(1, len(heard) // 2)", "missing >= 0", SCALING),
    Sabotage(
        "a restart forgets what was asked for",
        "Ledger.restore",
        "replace(order, asked=now, unclear=not order.ids)",
        "replace(order, asked=now, unclear=False, count=0)",
        SCALING,
    ),
    Sabotage(
        "unanswered orders do not count",
        "Ledger.alive",
        "len(self.jobs) + sum((order.count for order in self.unanswered()))",
        "len(self.jobs)",
        SCALING,
    ),
    Sabotage(
        "an order is sent before it is on disk",
        "ScalerMachine._note_orders",
        "self.changes['order', token] = dataclasses.asdict(order)",
        "pass",
        ("tests/unit/test_autoscaler.py",),
    ),
    Sabotage(
        "a pipeline without room keeps its share of the cap",
        "Planner._allowed",
        "len(self.ledger.of(pipeline.name)) if pipeline.full else pipeline.want",
        "pipeline.want",
        ("tests/unit/test_autoscaler.py",),
    ),
    Sabotage("two autoscalers in charge", "_take_charge", "fcntl.LOCK_EX", "fcntl.LOCK_SH", ("tests/unit/test_autoscaler.py",)),
    Sabotage(
        "the breaker never opens",
        "Breaker._failed",
        "now + min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** doublings)",
        "now * doublings",
        ("tests/unit/test_brake.py", "tests/unit/test_autoscaler.py"),
    ),
    Sabotage(
        "a job that leaves gets a task",
        "JobsHeard.came",
        "self.leaves(request.job, now)",
        "request.left < 0 and self.leaves(request.job, now)",
        ("tests/unit/test_attendance.py",),
    ),
    Sabotage(
        "a job takes a task that outlasts it",
        "JobsHeard.came",
        "1.2 * (longest := rates.percentile(95)) + MARGIN",
        "0 * (longest := rates.percentile(95))",
        ("tests/unit/test_attendance.py",),
    ),
    Sabotage(
        "a task may take all memory",
        "PreforkPool._check_memory",
        "taken > self.memory_mb",
        "taken > self.memory_mb << 20",
        ("tests/system/test_nursery.py",),
    ),
    Sabotage(
        "a spare worker that died is started",
        "PreforkPool._start",
        "os.waitpid(one.pid, os.WNOHANG)[0]",
        "os.waitpid(one.pid, os.WNOHANG)[0] < 0",
        ("tests/system/test_nursery.py",),
    ),
    Sabotage(
        "a job that is not wanted goes on", "JobPolicy._ended", "True", "False", ("tests/stories/test_worker_life_story.py",)
    ),
    Sabotage("spool does not wait for the disk", "connect", "'FULL'", "'OFF'", SPOOLED),
    Sabotage("spool never commits", "Rows.write", "'COMMIT'", "'SELECT 1'", SPOOLED),
    Sabotage(
        "spool believes a damaged row", "Rows._verified", "checksum_of(table, key, body) != checksum", "not checksum", SPOOLED
    ),
    Sabotage("a segment is not synced before its row", "Segments.sync", "os.fdatasync(self._descriptor)", "pass", PAYLOADS),
    Sabotage("a segment is reclaimed too early", "Segments.release", "not self._rows[name]", "self._rows[name] < 2", PAYLOADS),
    Sabotage(
        "the checksum of a payload is not compared",
        "Segments.read",
        "xxhash.xxh3_64_intdigest(body) != handle.xxh3",
        "not handle.xxh3",
        PAYLOADS,
    ),
    Sabotage(
        "the reserve is not used",
        "Spool._write",
        "self._spend()\nself._rows.tidy()",
        "",
        ("tests/unit/test_spool_full.py",),
    ),
    Sabotage(
        "a log that was cut is believed",
        "missing",
        "now == salts and readable >= frames",
        "now == salts",
        ("tests/unit/test_spool_damage.py",),
    ),
    Sabotage(
        "the sorter waits for early answers again",
        "ReleaseQueue.answered",
        "self.early.add(start)",
        "self.early |= {start} & {mark}",
        RELEASE,
    ),
    Sabotage(
        "a sink far away is told where payloads lie", "SorterMachine._send_whole", "self._to_sink.apart = True", "pass", RELEASE
    ),
    Sabotage(
        "pump answers before it commits",
        "Pump._perform",
        "if self._store is not None:\n    self._store.commit()",
        "",
        ("tests/system/test_pump.py",),
    ),
    Sabotage(
        "codec believes a damaged array",
        "_array",
        "xxhash.xxh3_64_intdigest(part) != header.xxh3",
        "header.xxh3 < 0",
        ("tests/unit/test_codec.py", "tests/contract/test_hostile_wire.py"),
    ),
    Sabotage(
        "an old attempt counts",
        "LeaseTable.holds",
        "task in self._leased and self._open_tasks[task].attempt == attempt",
        "task in self._leased",
    ),
    Sabotage("a lease never expires", "LeaseTable.expire", "ends <= now", "ends <= now - 1000000000.0"),
    Sabotage("a lease is not on disk when it is heard of", "LeaseTable.lease", "open_task.row()", "*()"),
    Sabotage(
        "a beat does not prolong",
        "LeaseTable.beat",
        "self._leased[task].expires = now + self.ttl",
        "",
        ("tests/stories/test_lease_table_story.py",),
    ),
    Sabotage(
        "a lease that beats keeps the others from their end",
        "LeaseTable.beat",
        "self._leased.move_to_end(task)",
        "",
        ("tests/stories/test_lease_table_story.py",),
    ),
    Sabotage("after a restart a fence is forgotten", "BufferMachine.__init__", "open_task.task.needs", "not open_task"),
    Sabotage(
        "void tasks are handed out",
        "BufferMachine._enter",
        "if entry.task.void:\n    return self._verdicts.abandon([open_task], entry.task.void)",
        "if not entry.task:\n    return self._verdicts.abandon([open_task], entry.task.void)",
    ),
    Sabotage(
        "an abandoned task is not told to the sorter",
        "Verdicts._close",
        "effects + self.to_sorter.add(task, verdict.attempt, verdict.reason)",
        "effects or self.to_sorter.add(task, verdict.attempt, verdict.reason)",
    ),
    Sabotage(
        "the cursor is not written down",
        "Intake.heard",
        "effects.append(Keep('cursor', 'cursor', msgspec.msgpack.encode(self.cursor)))",
        "",
    ),
    Sabotage(
        "verdicts are forgotten when they are reported",
        "Intake.questions",
        "if report:\n    self._report_at = now + PATIENCE",
        "if report:\n    self._report_at = now + PATIENCE\n    self._closed = {}",
    ),
    Sabotage(
        "the distributor forgets what is closed", "DistributorMachine._submit", "not self._tallies.knows(task)", "task.start >= 0"
    ),
    Sabotage(
        "a fence is always reached",
        "FenceMachine._answer",
        "(complete := self._complete(scan, need)) >= need.upto",
        "(complete := self._complete(scan, need)) >= 0",
    ),
    Sabotage("a fence never breaks", "FenceMachine._answer", "state.points < need.upto", "state.points < 0"),
    Sabotage(
        "a release is not repeated",
        "SorterMachine._release",
        "queue.note_sent(task, now + AGAIN_AFTER)",
        "queue.note_sent(task, now + 1000000000.0)",
    ),
    Sabotage(
        "a result is forgotten when it is sent",
        "SorterMachine._release",
        "WakeAt(Seconds(now + AGAIN_AFTER))",
        "*(WakeAt(Seconds(now + AGAIN_AFTER)), Forget('payload', task))",
    ),
    Sabotage(
        "the sorter takes a second verdict",
        "SorterMachine._is_known",
        "task in self._places or place.stop <= self._watermark(place.product)",
        "place.stop <= self._watermark(place.product)",
    ),
    Sabotage("the sorter answers before it keeps", "SorterMachine._store", "[*kept, answer]", "[answer]"),
    Sabotage("the sink takes a result twice", "ProductLedger.add", "self._records[record.start] = record", "pass"),
    Sabotage(
        "questions multiply",
        "Poll.heard",
        "news or now >= self._asked + NOTHING_NEW * self.wait",
        "self.wait",
        ("tests/unit/test_session.py",),
    ),
    Sabotage("a hole is not corrected", "SorterMachine._again", "request.task.generation", "not request"),
    Sabotage(
        "frames that never came are not covered",
        "_pieces_of_one",
        "yield Piece(at, points, trouble=NO_FILE)",
        "pass",
        ("tests/stories/test_file_tasks_story.py",),
    ),
    Sabotage(
        "a worker acknowledges before it stores",
        "_attempt",
        "_insist(caller, work.sorter, result, Ok, arrays=arrays)",
        "_done(work, lease, caller, (result.outcome, 0.0))\n_insist(caller, work.sorter, result, Ok, arrays=arrays)",
        ("tests/system/test_nursery.py::test_each_task_has_a_process_of_its_own",),
    ),
    Sabotage(
        "a damaged calibration file is believed",
        "_read",
        "content if settings.digest_of_bytes(content) == digest else None",
        "content",
        ("tests/unit/test_recipe.py",),
    ),
    Sabotage(
        "damaged settings are believed",
        "_document",
        "if settings.digest_of(document) == digest:\n    return document",
        "return document",
        ("tests/unit/test_recipe.py",),
    ),
    Sabotage(
        "a result gives way to a retry",
        "Record.gives_way_to",
        "same and self.outcome == 'abandoned' and (task.generation > self.generation)",
        "same and task.generation > self.generation",
        DEAD,
    ),
    Sabotage(
        "an older generation corrects a newer one",
        "Record.gives_way_to",
        "task.generation > self.generation",
        "task.generation != self.generation",
        DEAD,
    ),
    Sabotage(
        "an old answer of the sink takes a correction away",
        "Corrections.released",
        "known is None or known.generation != generation",
        "known is None",
        DEAD,
    ),
    Sabotage("a retry starts counting attempts anew", "BufferMachine._asked", "one.attempts", "0", DEAD),
    Sabotage(
        "a page of verdicts goes with the first that is confirmed",
        "VerdictsToDistributor._leave",
        "if self._left[page]:\n    return []",
        "",
        ("tests/stories/test_closings_story.py",),
    ),
    Sabotage(
        "a dead letter is not kept", "Verdicts._close", "self.letters.add(verdict.letter) if verdict.letter else []", "[]", DEAD
    ),
    Sabotage("losses on many hosts are bad luck", "counts_as", "len(open_task.hosts) < GUILTY", "ticket.hosts", DEAD),
    Sabotage(
        "a corrected file is taken for finished",
        "finished_file",
        "facts and facts[:3] == wanted and (facts[3] >= corrections)",
        "facts and facts[:3] == wanted",
        ("tests/system/test_dead_letters.py",),
    ),
    Sabotage(
        "a buffer that stood still blames its workers",
        "LeaseClock.at",
        "now - self._last > MOST",
        "now - self._last > 1000000000.0",
        ("tests/unit/test_lease_clock.py",),
    ),
    Sabotage(
        "an early end plans over what was submitted",
        "_end",
        "next(across, state.points)",
        "state.points",
        ("tests/stories/test_file_tasks_story.py",),
    ),
    Sabotage(
        "a first file that never came is not missed",
        "_before",
        "not _begins_late(files, source)",
        "files",
        ("tests/stories/test_file_tasks_story.py",),
    ),
    Sabotage(
        "an empty answer of squeue is the truth",
        "VanishedJobs.judge",
        "now - self.doubted < DOUBT",
        "now < self.doubted",
        SLURMED,
    ),
    Sabotage(
        "a line that was cut short is believed",
        "_sightings",
        "not line.endswith(END)",
        "False",
        ("tests/unit/test_slurm_text.py",),
    ),
    Sabotage(
        "a time-out of sbatch is a refusal",
        "Commands.submit",
        "Unclear(f'sbatch did not come back within {self._patience:g} s')",
        "Denied(Cause.DOWN, f'sbatch did not come back within {self._patience:g} s')",
        SLURMED,
    ),
    Sabotage(
        "a broken connection is a refusal", "cause_of", "return None", "return Cause.DOWN", ("tests/unit/test_slurm_text.py",)
    ),
    Sabotage(
        "an array is larger than Slurm takes", "SlurmLauncher._most_in_array", "self._bound - 1", "self._bound + 1", SLURMED
    ),
    Sabotage("the token is not with the job", "options", "order.token", "''", SLURMED),
    Sabotage(
        "words of a script are not quoted",
        "script",
        "f'{gpu}exec {shlex.join(argv)}\\n'",
        "f\"{gpu}exec {' '.join(argv)}\\n\"",
        ("tests/unit/test_sbatch_templates.py",),
    ),
    Sabotage(
        "results behind a gap take the room of those before it",
        "ByteBudget.refusal",
        "1.0 if first else HARD if next_in_line else SOFT",
        "1000000000.0",
        ("tests/unit/test_result_room.py",),
    ),
    Sabotage(
        "the distributor takes in tasks without end",
        "DistributorMachine._full",
        "ROW * (waiting + count) > SOFT * self._backlog",
        "waiting < 0",
        ("tests/unit/test_result_room.py",),
    ),
    Sabotage(
        "promises of room are not added up", "ByteBudget.ask", "promised + size", "size", ("tests/unit/test_result_room.py",)
    ),
    Sabotage(
        "a watcher that never reads piles up questions",
        "SinkMachine.handle",
        "self._waiting.add(event.peer, event, request, now, request.wait)",
        "self._waiting.add(event.peer + str(event.id).encode(), event, request, now, request.wait)",
        ("tests/stories/test_catalogue_story.py",),
    ),
    Sabotage(
        "a batch is never too heavy",
        "Pump._events",
        "self._weight > self._limits.batch",
        "self._weight < 0",
        ("tests/system/test_limits.py",),
    ),
    Sabotage(
        "handing a task back counts as a loss",
        "BufferMachine._unreachable",
        "'handback'",
        "'infra'",
        ("tests/unit/test_buffer_and_distributor.py", "tests/stories/test_delivery_story.py"),
    ),
    Sabotage(
        "cancelled tasks far back in the queue are handed out",
        "Backlog.cancel",
        "del self._arrivals[name]",
        "",
        ("tests/stories/test_backlog_story.py",),
    ),
    Sabotage(
        "prepared arrays are believed without a look",
        "_read",
        "if any((_checksum(arrays[name]) != wanted for name, (_, wanted) in index.items())):\n    return None",
        "",
        ("tests/unit/test_prepared_arrays.py",),
    ),
    Sabotage(
        "a spectrum's weights follow its task",
        "FastModel.fit",
        "found[:, lines]",
        "found[:, lines] * (1 + 1e-05 * len(net))",
        ("tests/unit/test_xrf_fast.py",),
    ),
    Sabotage(
        "a spectrum depends on those that are fitted beside it",
        "xrf_fit.c",
        "take(net + (n + s) * stride,",
        "take(net + n * stride,",
        ("tests/unit/test_xrf_fast.py",),
    ),
    Sabotage(
        "an element that counts nothing needs a dead-time factor",
        "xrf_spectra.c",
        "if (!any)",
        "if (!any && !factors)",
        ("tests/unit/test_xrf_fast.py",),
    ),
    Sabotage(
        "a pixel forgets its third bin",
        "xrd.c",
        "for (long n = 0; n < table.more; n++) {",
        "for (long n = 0; n < table.more / 2; n++) {",
        ("tests/unit/test_xrd.py",),
    ),
    Sabotage(
        "a spike among the positions is believed",
        "load.kernel",
        "spike |= spikes(values, frames['scan/line'], settings.spike, settings.neighbours)",
        "spike &= spikes(values, frames['scan/line'], settings.spike, settings.neighbours)",
        ("tests/unit/test_positions.py",),
    ),
    Sabotage(
        "a counter that wrapped around is not put right",
        "unwrapped",
        "np.rint(middle) - whole / 2",
        "np.rint(middle)",
        ("tests/unit/test_encoders.py",),
    ),
    Sabotage(
        "the dark current of the lock-in is left in",
        "load.kernel",
        "dark(frames, settings)",
        "0 * dark(frames, settings)",
        ("tests/unit/test_xbic.py",),
    ),
    Sabotage(
        "a counter's dark is subtracted after its gain",
        "counted",
        "columns.given(frames, one.dark)",
        "columns.given(frames, one.dark) / one.gain",
        ("tests/unit/test_counters.py",),
    ),
    Sabotage(
        "the mirror's drift is added",
        "load.kernel",
        "datasets[name] - drift[name]",
        "datasets[name] + drift[name]",
        ("tests/unit/test_interferometer.py",),
    ),
    Sabotage(
        "an id that was given away again stays with the old job",
        "Ledger.answered",
        "self._given_again(job, token, now)",
        "",
        SCALING,
    ),
    Sabotage(
        "the centre of mass counts from one",
        "middle",
        "np.arange(length) - (length - 1) / 2",
        "np.arange(length) - (length - 1) / 2 + 1",
        ("tests/unit/test_dpc.py",),
    ),
    Sabotage(
        "a map forgets the weights",
        "binned",
        "weight * np.asarray(values, float)[good]",
        "np.asarray(values, float)[good]",
        ("tests/unit/test_gridding.py",),
    ),
    Sabotage(
        "positions in another unit than the settings say are taken",
        "Modality.suits",
        "found != units.canonical(unit)",
        "not unit",
        ("tests/unit/test_positions.py",),
    ),
    Sabotage(
        "a phase keeps its plane",
        "integrated",
        "without_plane(frankot_chellappa(filled[0], filled[1]), measured)",
        "frankot_chellappa(filled[0], filled[1])",
        ("tests/unit/test_dpc_phase.py",),
    ),
    Sabotage(
        "saturated pixels keep their share of the norm",
        "IntegrationTable.integrate",
        "self.sums - lost if missing else self.sums",
        "self.sums",
        ("tests/unit/test_xrd.py",),
    ),
    Sabotage(
        "a batch forgets to add up over the ranks",
        "Batched._sum",
        "self._bench.team.add_up(sums.arrays())",
        "sums.arrays()",
        ("tests/system/test_mpi.py",),
    ),
    Sabotage(
        "positions move the wrong way",
        "displacements",
        "np.where(safe, determinant, 1.0)[:, None]",
        "-np.where(safe, determinant, 1.0)[:, None]",
        ("tests/unit/test_ptycho_operators.py",),
    ),
    Sabotage("masked pixels are projected too", "modulus", "1 - good", "0 * good", ("tests/unit/test_ptycho_operators.py",)),
    Sabotage(
        "an older attempt's picture is shown",
        "SinkWithPreviews._told",
        "before[1].attempt <= told.attempt",
        "before[1].attempt != 0",
        ("tests/stories/test_preview_story.py",),
    ),
    Sabotage(
        "external storage is read", "_sources", "kept.get_external_count()", "not kept", ("tests/unit/test_hdf5_confinement.py",)
    ),
    Sabotage(
        "a link of an HDF5 file leaves its root",
        "_places",
        "place.is_relative_to(root)",
        "root.exists()",
        ("tests/unit/test_hdf5_confinement.py",),
    ),
    Sabotage("strangers are let in where nobody answers", "secure_server", "1", "0", ("tests/security/test_authentication.py",)),
    Sabotage(
        "what a role may say is not looked at",
        "Guard.refusal",
        "not may(entry.role, message)",
        "False",
        ("tests/security/test_authentication.py",),
    ),
    Sabotage(
        "who was let through once is let through for ever",
        "Guard._look",
        "self._passed = set()",
        "pass",
        ("tests/security/test_authentication.py",),
    ),
    Sabotage(
        "a question that is not answered in its batch waits for ever",
        "PendingRequests._order",
        "heapq.heappush(self._deadlines, entry)",
        "pass",
        ("tests/unit/test_session.py",),
    ),
    Sabotage("a key never ends", "KeyEntry.refusal", "utc >= self.expires", "False", ("tests/security/test_authentication.py",)),
    Sabotage(
        "a link to a key is followed",
        "_read",
        "os.O_RDONLY | os.O_NOFOLLOW",
        "os.O_RDONLY",
        ("tests/security/test_key_files.py",),
    ),
    Sabotage(
        "a task that began early takes frames without their positions",
        "news_of",
        "min(pieces[-1].stop if pieces else 0, seen.complete)",
        "pieces[-1].stop if pieces else 0",
        ("tests/stories/test_growing_story.py",),
    ),
    Sabotage(
        "a task that begins early is another one after an early end",
        "_early_task",
        "(0, planned)",
        "(0, state.points)",
        ("tests/stories/test_file_tasks_story.py",),
    ),
    Sabotage(
        "the object so far moves when the scan grows",
        "_placed",
        "old - new",
        "0 * (old - new)",
        ("tests/unit/test_ptycho_live.py",),
    ),
    Sabotage(
        "a pixel that goes bad late is believed in early frames",
        "Cutter.prepared",
        "counts[:, self._bad] = 0.0",
        "",
        ("tests/unit/test_ptycho_live.py",),
    ),
    Sabotage(
        "a reconstruction is asked about frames that it has seen",
        "_left_out",
        "np.setdiff1d(which, out)",
        "which",
        ("tests/unit/test_ptycho_verdict.py",),
    ),
    Sabotage(
        "what is no number has converged",
        "verdict_of",
        "not figures.explained >= UNEXPLAINED",
        "figures.explained < UNEXPLAINED",
        ("tests/unit/test_ptycho_verdict.py",),
    ),
    Sabotage(
        "parts of a scan are reconstructed",
        "Modality.check_source",
        "source.frames_per_task != 'scan'",
        "False",
        ("tests/unit/test_ptycho_verdict.py",),
    ),
    Sabotage("a task whose result is there is given up all the same", "Verdicts.heard", "given_up + 1", "given_up"),
    Sabotage(
        "an old answer of the sink counts", "GivenUpTasks.answered", "generation != answer.generation", "generation < 0", DOUBTED
    ),
    Sabotage(
        "a hole that waits speaks for a retry",
        "GivenUpTasks.look",
        "there.outcome == 'abandoned' and there.task.generation < request.task.generation",
        "False",
        DOUBTED,
    ),
    Sabotage(
        "a retry that is given up overtakes its result",
        "SorterMachine._given_up",
        "if task in self._corrections:\n    return []",
        "",
        DOUBTED,
    ),
    Sabotage(
        "results go although they changed since they were filed",
        "Retention.step",
        "ledger is not None and ledger.filed is None and (ledger.version <= filed)",
        "ledger is not None and ledger.filed is None",
        FILED,
    ),
    Sabotage(
        "what was on its way out before a restart stays for ever", "Retention.add", "self._leaving.append(record.key)", "", FILED
    ),
    Sabotage(
        "what is let go is forgotten with its state",
        "Retention.step",
        "[Keep(STATES, product.key, _encode(ledger.state())), Forget('forms', product.key)]",
        "[Forget('forms', product.key)]",
        FILED,
    ),
    Sabotage(
        "a scan with dead letters is filed",
        "FiledScans._is_open",
        "any((self._ask(f'buffer.{name}', DeadListRequest(scan=scan), DeadLetters).total for name in holes))",
        "False and any((self._ask(f'buffer.{name}', DeadListRequest(scan=scan), DeadLetters).total for name in holes))",
        ("tests/system/test_writer_follows_the_sink.py",),
    ),
    Sabotage(
        "who never reads is answered again and again", "UnreadAnswers.refusal", "not mine", "True", ("tests/unit/test_lent.py",)
    ),
    Sabotage(
        "a bundle holds what is newest, and not what its task needs",
        "_bundle",
        "client.fetch(one.scan, name, one.start, one.stop, need.settings)",
        "client.fetch(one.scan, name, one.start, one.stop)",
        ("tests/system/test_client.py",),
    ),
)
