"""One-line sabotages: mistakes that somebody might make, each with the tests that must notice."""

from dataclasses import dataclass

WORLD = "tests/world"
BUFFER = "beamline_side/cores/buffer.py"
VERDICTS = "beamline_side/cores/verdicts.py"
TICKET = "beamline_side/cores/ticket.py"
LEASES = "beamline_side/cores/lease_table.py"
QUEUE = "beamline_side/cores/release_queue.py"
SORTER = "beamline_side/cores/sorter.py"
FILING, FILED = "beamline_side/cores/filing.py", ("tests/stories/test_filing_story.py",)
DOUBTS, DOUBTED = "beamline_side/cores/doubts.py", ("tests/unit/test_doubts.py",)
SPOOL = "beamline_side/spool/sqlite_spool.py"
ROWS = "beamline_side/spool/rows.py"
CONNECTION = "beamline_side/spool/connection.py"
PUMP = "beamtide/pump/loop.py"
CODEC = "beamtide/codec.py"
WORKER = "cluster_side/worker/one_task.py"
RECIPE = "cluster_side/worker/recipe.py"

SEGMENTS = "beamline_side/spool/segments.py"
MARK = "beamline_side/spool/mark.py"
PAYLOADS = ("tests/unit/test_spool_payloads.py",)
RELEASE = ("tests/unit/test_release.py",)
SPOOLED = ("tests/unit/test_spool.py",)
SLURM = "cluster_side/scaling/launchers/"
SLURMED = ("tests/slurm/test_faults.py",)
LAW, LAWS = "cluster_side/scaling/law.py", ("tests/unit/test_law.py",)
STEERING, LEDGER = "cluster_side/scaling/steering.py", "cluster_side/scaling/ledger.py"
SCALING = ("tests/stories/test_ledger_story.py",)
DEAD = ("tests/unit/test_dead_letter_cores.py",)


@dataclass(frozen=True, slots=True)
class Sabotage:
    """Replace `old`, which stands exactly once in `file`, by `new`; one of `tests` must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...] = (WORLD,)


SABOTAGES = (
    Sabotage(
        "law has no cap",
        LAW,
        "    given, left = dict.fromkeys(wishes, 0), cap\n",
        "    given, left = dict.fromkeys(wishes, 0), cap + 1\n",
        LAWS,
    ),
    Sabotage(
        "a guess starts jobs",
        LAW,
        "    expected = 0 if demand.expected is None else math.ceil(demand.expected - 1e-9)",
        "    expected = math.ceil(arrivals(demand, fleet.cold_start))",
        LAWS,
    ),
    Sabotage(
        "an order is placed without a picture",
        STEERING,
        "        if not self.ledger.known or unclear or crew.full",
        "        if unclear or crew.full",
        SCALING,
    ),
    Sabotage(
        "an unclear order is asked for again at once",
        STEERING,
        "        if not self.ledger.known or unclear or crew.full",
        "        if not self.ledger.known or crew.full",
        SCALING,
    ),
    Sabotage(
        "orders and cancellations chase each other",
        STEERING,
        "        if now - crew.surplus_since < (SETTLE if short else VOTE) or now - crew.submitted_at < SETTLE:",
        "        if now - crew.surplus_since < (SETTLE if short else VOTE):",
        SCALING,
    ),
    Sabotage(
        "an empty answer means no jobs",
        LEDGER,
        "        if missing <= max(1, len(heard) // 2):",
        "        if missing >= 0:",
        SCALING,
    ),
    Sabotage(
        "a restart forgets what was asked for",
        LEDGER,
        "replace(order, asked=now, unclear=not order.ids)",
        "replace(order, asked=now, unclear=False, count=0)",
        SCALING,
    ),
    Sabotage(
        "unanswered orders do not count",
        LEDGER,
        "        return len(self.jobs) + sum(order.count for order in self.unanswered())",
        "        return len(self.jobs)",
        SCALING,
    ),
    Sabotage(
        "an order is sent before it is on disk",
        "cluster_side/scaling/scaler.py",
        '                self.changes["order", token] = dataclasses.asdict(order)',
        "                pass",
        ("tests/unit/test_autoscaler.py",),
    ),
    Sabotage(
        "a pipeline without room keeps its share of the cap",
        STEERING,
        "        there = len(self.ledger.of(crew.name)) if crew.full else crew.want",
        "        there = crew.want",
        ("tests/unit/test_autoscaler.py",),
    ),
    Sabotage(
        "two autoscalers in charge",
        "cluster_side/scaling/journal.py",
        "        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)",
        ("tests/unit/test_autoscaler.py",),
    ),
    Sabotage(
        "the breaker never opens",
        "cluster_side/scaling/brake.py",
        "            self.until = now + min(LONGEST_PAUSE, FIRST_PAUSE * 2**doublings)",
        "            self.until = now * doublings",
        ("tests/unit/test_brake.py", "tests/unit/test_autoscaler.py"),
    ),
    Sabotage(
        "a job that leaves gets a task",
        "beamline_side/cores/attendance.py",
        "        if self.leaves(request.job, now):",
        "        if request.left < 0 and self.leaves(request.job, now):",
        ("tests/unit/test_attendance.py",),
    ),
    Sabotage(
        "a job takes a task that outlasts it",
        "beamline_side/cores/attendance.py",
        "request.left < 1.2 * (longest := tempo.percentile(95)) + MARGIN",
        "request.left < 0 * (longest := tempo.percentile(95))",
        ("tests/unit/test_attendance.py",),
    ),
    Sabotage(
        "a task may take all memory",
        "cluster_side/worker/nursery.py",
        "        if taken > self.memory_mb:",
        "        if taken > self.memory_mb << 20:",
        ("tests/system/test_nursery.py",),
    ),
    Sabotage(
        "a spare worker that died is started",
        "cluster_side/worker/nursery.py",
        "        if one is not None and os.waitpid(one.pid, os.WNOHANG)[0]:",
        "        if one is not None and os.waitpid(one.pid, os.WNOHANG)[0] < 0:",
        ("tests/system/test_nursery.py",),
    ),
    Sabotage(
        "a job that is not wanted goes on",
        "cluster_side/worker/life.py",
        "            self._unwanted = True",
        "            self._unwanted = False",
        ("tests/stories/test_worker_life_story.py",),
    ),
    Sabotage("spool does not wait for the disk", CONNECTION, "'FULL' if synced else", "'OFF' if synced else", SPOOLED),
    Sabotage(
        "spool never commits",
        ROWS,
        '            self.connection.execute("COMMIT")',
        '            self.connection.execute("SELECT 1")',
        SPOOLED,
    ),
    Sabotage(
        "spool believes a damaged row",
        ROWS,
        "        if checksum_of(table, key, body) != checksum:",
        "        if not checksum:",
        SPOOLED,
    ),
    Sabotage(
        "a segment is not synced before its row",
        SEGMENTS,
        "            os.fdatasync(self._descriptor)",
        "            pass",
        PAYLOADS,
    ),
    Sabotage(
        "a segment is reclaimed too early",
        SEGMENTS,
        "            if not self._rows[name]:\n                del",
        "            if self._rows[name] < 2:\n                del",
        PAYLOADS,
    ),
    Sabotage(
        "the checksum of a payload is not compared",
        SEGMENTS,
        "        if xxhash.xxh3_64_intdigest(body) != handle.xxh3:",
        "        if not handle.xxh3:",
        PAYLOADS,
    ),
    Sabotage(
        "the reserve is not used",
        SPOOL,
        "        self._spend()\n        self._rows.tidy()",
        "",
        ("tests/unit/test_spool_full.py",),
    ),
    Sabotage(
        "a log that was cut is believed",
        MARK,
        "    if now == salts and readable >= frames:",
        "    if now == salts:",
        ("tests/unit/test_spool_damage.py",),
    ),
    Sabotage(
        "the sorter waits for early answers again",
        QUEUE,
        "        self.early.add(start)",
        "        self.early |= {start} & {mark}",
        RELEASE,
    ),
    Sabotage("a sink far away is told where payloads lie", SORTER, "        self._parcels.apart = True", "        pass", RELEASE),
    Sabotage(
        "pump answers before it commits",
        PUMP,
        "        if self._store is not None:\n            self._store.commit()\n        for effect in effects:",
        "        for effect in effects * (self._store is None):",
        ("tests/system/test_pump.py",),
    ),
    Sabotage(
        "codec believes a damaged array",
        CODEC,
        "    if xxhash.xxh3_64_intdigest(part) != header.xxh3:",
        "    if header.xxh3 < 0:",
        ("tests/unit/test_codec.py", "tests/contract/test_hostile_wire.py"),
    ),
    Sabotage(
        "an old attempt counts",
        LEASES,
        "return task in self._leased and self._tickets[task].attempt == attempt",
        "return task in self._leased",
    ),
    Sabotage("a lease never expires", LEASES, "and ends <= now:", "and ends <= now - 1e9:"),
    Sabotage("a lease is not on disk when it is heard of", LEASES, "return ticket.row(), Grant(", "return *(), Grant("),
    Sabotage(
        "a beat does not prolong",
        LEASES,
        "        self._leased[task].expires = now + self.ttl\n",
        "",
        ("tests/stories/test_lease_table_story.py",),
    ),
    Sabotage(
        "a lease that beats keeps the others from their end",
        LEASES,
        "        self._leased.move_to_end(task)\n",
        "",
        ("tests/stories/test_lease_table_story.py",),
    ),
    Sabotage(
        "after a restart a fence is forgotten",
        BUFFER,
        "(self._gate.hold if ticket.task.needs else",
        "(self._gate.hold if not ticket else",
    ),
    Sabotage("void tasks are handed out", BUFFER, "        if entry.task.void:", "        if not entry.task:"),
    Sabotage(
        "an abandoned task is not told to the sorter",
        VERDICTS,
        "return effects + self.outbox.add(",
        "return effects or self.outbox.add(",
    ),
    Sabotage(
        "the cursor is not written down",
        "beamline_side/cores/intake.py",
        "        if fresh:\n",
        "        if fresh and not fresh:\n",
    ),
    Sabotage(
        "verdicts are forgotten when they are reported",
        "beamline_side/cores/intake.py",
        "            self._report_at = now + PATIENCE\n",
        "            self._report_at = now + PATIENCE\n            self._closed = {}\n",
    ),
    Sabotage(
        "the distributor forgets what is closed",
        "beamline_side/cores/distributor.py",
        "if not self._tallies.knows(task)}",
        "if task.start >= 0}",
    ),
    Sabotage("a fence is always reached", "beamline_side/cores/fence.py", ">= need.upto:", ">= 0:"),
    Sabotage("a fence never breaks", "beamline_side/cores/fence.py", "state.points < need.upto:", "state.points < 0:"),
    Sabotage("a release is not repeated", SORTER, "queue.note_sent(task, now + AGAIN_AFTER)", "queue.note_sent(task, now + 1e9)"),
    Sabotage(
        "a result is forgotten when it is sent",
        SORTER,
        "WakeAt(Seconds(now + AGAIN_AFTER))]",
        'WakeAt(Seconds(now + AGAIN_AFTER)), Forget("payload", task)]',
    ),
    Sabotage("the sorter takes a second verdict", SORTER, "return task in self._places or place.stop <=", "return place.stop <="),
    Sabotage("the sorter answers before it keeps", SORTER, "return [*kept, answer]", "return [answer]"),
    Sabotage(
        "the sink takes a result twice",
        "beamline_side/cores/product_ledger.py",
        "self._records[record.start] = record\n",
        "pass\n",
    ),
    Sabotage(
        "questions multiply",
        "beamtide/session.py",
        "        if news or now >= self._asked + NOTHING_NEW * self.wait:",
        "        if self.wait:",
        ("tests/unit/test_session.py",),
    ),
    Sabotage(
        "a hole is not corrected",
        SORTER,
        "        if request.task.generation:",
        "        if not request:",
    ),
    Sabotage(
        "frames that never came are not covered",
        "beamtide/files/pieces.py",
        "        yield Piece(at, points, trouble=NO_FILE)",
        "        pass",
        ("tests/stories/test_file_tasks_story.py",),
    ),
    Sabotage(
        "a worker acknowledges before it stores",
        WORKER,
        "        _insist(caller, sorter, result,",
        "        _done(work, lease, caller, (result.outcome, 0.0))\n        _insist(caller, sorter, result,",
        ("tests/system/test_nursery.py::test_each_task_has_a_process_of_its_own",),
    ),
    Sabotage(
        "a damaged calibration file is believed",
        RECIPE,
        "return content if settings.digest_of_bytes(content) == digest else None",
        "return content",
        ("tests/unit/test_recipe.py",),
    ),
    Sabotage(
        "damaged settings are believed",
        RECIPE,
        "        if settings.digest_of(document) == digest:\n            return document\n",
        "        return document\n",
        ("tests/unit/test_recipe.py",),
    ),
    Sabotage(
        "a result gives way to a retry",
        "beamline_side/cores/product_ledger.py",
        'same and self.outcome == "abandoned" and',
        "same and",
        DEAD,
    ),
    Sabotage(
        "an older generation corrects a newer one",
        "beamline_side/cores/product_ledger.py",
        "task.generation > self.generation",
        "task.generation != self.generation",
        DEAD,
    ),
    Sabotage(
        "an old answer of the sink takes a correction away",
        "beamline_side/cores/corrections.py",
        "known is None or known.generation != generation",
        "known is None",
        DEAD,
    ),
    Sabotage(
        "a retry starts counting attempts anew", BUFFER, "one.seq, self._time, one.attempts)", "one.seq, self._time, 0)", DEAD
    ),
    Sabotage("a dead letter is not kept", VERDICTS, "self.letters.add(verdict.letter) if verdict.letter else []", "[]", DEAD),
    Sabotage(
        "losses on many hosts are bad luck", "beamline_side/cores/ticket.py", "len(ticket.hosts) < GUILTY", "ticket.hosts", DEAD
    ),
    Sabotage(
        "a corrected file is taken for finished",
        "beamline_side/writers/files.py",
        " and facts[3] >= corrections",
        "",
        ("tests/system/test_dead_letters.py",),
    ),
    Sabotage(
        "a buffer that stood still blames its workers",
        "beamline_side/cores/lease_clock.py",
        "now - self._last > MOST:",
        "now - self._last > 1e9:",
        ("tests/unit/test_lease_clock.py",),
    ),
    Sabotage(
        "an early end plans over what was submitted",
        "beamline_side/cores/file_tasks.py",
        "return next(across, state.points)",
        "return state.points",
        ("tests/stories/test_file_tasks_story.py",),
    ),
    Sabotage(
        "a first file that never came is not missed",
        "beamtide/files/row.py",
        "    if not _begins_late(files, source):\n        return []\n",
        "    if files:\n        return []\n",
        ("tests/stories/test_file_tasks_story.py",),
    ),
    Sabotage(
        "an empty answer of squeue is the truth",
        SLURM + "slurm_recall.py",
        "            if now - self.doubted < DOUBT:",
        "            if now < self.doubted:",
        SLURMED,
    ),
    Sabotage(
        "a line that was cut short is believed",
        SLURM + "slurm_text.py",
        "not line.endswith(END) or ",
        "",
        ("tests/unit/test_slurm_text.py",),
    ),
    Sabotage(
        "a time-out of sbatch is a refusal",
        SLURM + "slurm_cli.py",
        'return Unclear(f"sbatch did not',
        'return Denied(Cause.DOWN, f"sbatch did not',
        SLURMED,
    ),
    Sabotage(
        "a broken connection is a refusal",
        SLURM + "slurm_refusals.py",
        "        return None\n    for pattern",
        "        return Cause.DOWN\n    for pattern",
        ("tests/unit/test_slurm_text.py",),
    ),
    Sabotage(
        "an array is larger than Slurm takes",
        SLURM + "slurm.py",
        "min(MOST_IN_ARRAY, self._bound - 1)",
        "min(MOST_IN_ARRAY, self._bound + 1)",
        SLURMED,
    ),
    Sabotage(
        "the token is not with the job",
        SLURM + "slurm_options.py",
        '        "comment": order.token,\n',
        "",
        SLURMED,
    ),
    Sabotage(
        "words of a script are not quoted",
        "cluster_side/images/enter.py",
        'return f"{gpu}exec {shlex.join(argv)}\\n"',
        "return f\"{gpu}exec {' '.join(argv)}\\n\"",
        ("tests/unit/test_sbatch_templates.py",),
    ),
    Sabotage(
        "results behind a gap take the room of those before it",
        "beamline_side/cores/result_room.py",
        "share = 1.0 if first else HARD if next_in_line else SOFT",
        "share = 1e9",
        ("tests/unit/test_result_room.py",),
    ),
    Sabotage(
        "the distributor takes in tasks without end",
        "beamline_side/cores/distributor.py",
        "if ROW * (waiting + count) > SOFT * self._backlog:",
        "if waiting < 0:",
        ("tests/unit/test_result_room.py",),
    ),
    Sabotage(
        "promises of room are not added up",
        "beamline_side/cores/result_room.py",
        "promised + size > self.memory",
        "size > self.memory",
        ("tests/unit/test_result_room.py",),
    ),
    Sabotage(
        "a watcher that never reads piles up questions",
        "beamline_side/cores/catalogue.py",
        "self._waiting.add(event.peer, event,",
        "self._waiting.add(event.peer + str(event.id).encode(), event,",
        ("tests/stories/test_catalogue_story.py",),
    ),
    Sabotage(
        "a batch is never too heavy",
        "beamtide/pump/loop.py",
        "if self._weight > self._limits.batch:",
        "if self._weight < 0:",
        ("tests/system/test_limits.py",),
    ),
    Sabotage(
        "handing a task back counts as a loss",
        "beamline_side/cores/buffer.py",
        '*held, "handback", "gone',
        '*held, "infra", "gone',
        ("tests/unit/test_buffer_and_distributor.py", "tests/stories/test_delivery_story.py"),
    ),
    Sabotage(
        "cancelled tasks far back in the queue are handed out",
        "beamline_side/cores/backlog.py",
        "            del self._arrivals[name]\n            self._doomed",
        "            self._doomed",
        ("tests/stories/test_backlog_story.py",),
    ),
    Sabotage(
        "prepared arrays are believed without a look",
        "cluster_side/worker/prepared_arrays.py",
        "        if any(_checksum(arrays[name]) != wanted for name, (_, wanted) in index.items()):\n            return None\n",
        "",
        ("tests/unit/test_prepared_arrays.py",),
    ),
    Sabotage(
        "a spectrum's weights follow its task",
        "cluster_side/modalities/xrf/fast_fit.py",
        "        found = nnls.solve(self._gram, net @ self._weighted, self._free)",
        "        found = nnls.solve(self._gram, net @ self._weighted, self._free) * (1 + 1e-5 * len(counts))",
        ("tests/unit/test_xrf_fast.py",),
    ),
    Sabotage(
        "a pixel forgets its third bin",
        "cluster_side/modalities/native/kernels.c",
        "for (long n = 0; n < table.more; n++) {",
        "for (long n = 0; n < table.more / 2; n++) {",
        ("tests/unit/test_xrd.py",),
    ),
    Sabotage(
        "a spike among the positions is believed",
        "cluster_side/modalities/positions/kernel.py",
        "            spike |= spikes(",
        "            spike &= spikes(",
        ("tests/unit/test_positions.py",),
    ),
    Sabotage(
        "a counter that wrapped around is not put right",
        "cluster_side/modalities/stage.py",
        "    low = np.rint(middle) - whole / 2",
        "    low = np.rint(middle)",
        ("tests/unit/test_encoders.py",),
    ),
    Sabotage(
        "the dark current of the lock-in is left in",
        "cluster_side/modalities/xbic/kernel.py",
        "(raw - dark(frames, settings)) * scale",
        "(raw - 0 * dark(frames, settings)) * scale",
        ("tests/unit/test_xbic.py",),
    ),
    Sabotage(
        "a counter's dark is subtracted after its gain",
        "cluster_side/modalities/counters/kernel.py",
        "columns.given(frames, one.dark))) * one.gain",
        "columns.given(frames, one.dark) / one.gain)) * one.gain",
        ("tests/unit/test_counters.py",),
    ),
    Sabotage(
        "the mirror's drift is added",
        "cluster_side/modalities/interferometer/kernel.py",
        "datasets[name] = datasets[name] - drift[name]",
        "datasets[name] = datasets[name] + drift[name]",
        ("tests/unit/test_interferometer.py",),
    ),
    Sabotage(
        "an id that was given away again stays with the old job",
        LEDGER,
        "                    self._given_again(job, token, now)\n",
        "",
        SCALING,
    ),
    Sabotage(
        "the centre of mass counts from one",
        "cluster_side/modalities/dpc/moments.py",
        "    at = np.arange(length) - (length - 1) / 2",
        "    at = np.arange(length) - (length - 1) / 2 + 1",
        ("tests/unit/test_dpc.py",),
    ),
    Sabotage(
        "a map forgets the weights",
        "beamtide/gridding.py",
        "    total = np.bincount(cell, weight * np.asarray(values, float)[good], rows * columns)",
        "    total = np.bincount(cell, np.asarray(values, float)[good], rows * columns)",
        ("tests/unit/test_gridding.py",),
    ),
    Sabotage(
        "positions in another unit than the settings say are taken",
        "cluster_side/modalities/base.py",
        "            if found and found != units.canonical(unit):",
        "            if found and not unit:",
        ("tests/unit/test_positions.py",),
    ),
    Sabotage(
        "a phase keeps its plane",
        "cluster_side/modalities/dpc_phase/kernel.py",
        "without_plane(frankot_chellappa(filled[0], filled[1]), measured)",
        "frankot_chellappa(filled[0], filled[1])",
        ("tests/unit/test_dpc_phase.py",),
    ),
    Sabotage(
        "saturated pixels keep their share of the norm",
        "cluster_side/modalities/xrd/integrate.py",
        "        rest = self.sums - lost if missing else self.sums",
        "        rest = self.sums",
        ("tests/unit/test_xrd.py",),
    ),
    Sabotage(
        "a batch forgets to add up over the ranks",
        "cluster_side/modalities/ptychography/batched.py",
        "        self._bench.team.add_up(sums.arrays())",
        "        sums.arrays()",
        ("tests/system/test_mpi.py",),
    ),
    Sabotage(
        "positions move the wrong way",
        "cluster_side/modalities/ptychography/moves.py",
        "    found /= np.where(safe, determinant, 1.0)[:, None]",
        "    found /= -np.where(safe, determinant, 1.0)[:, None]",
        ("tests/unit/test_ptycho_operators.py",),
    ),
    Sabotage(
        "masked pixels are projected too",
        "cluster_side/modalities/ptychography/operators.py",
        "        factor += 1 - good",
        "        factor += 0 * good",
        ("tests/unit/test_ptycho_operators.py",),
    ),
    Sabotage(
        "an older attempt's picture is shown",
        "beamline_side/cores/previews.py",
        "before[1].attempt <= told.attempt",
        "before[1].attempt != 0",
        ("tests/stories/test_preview_story.py",),
    ),
    Sabotage(
        "external storage is read",
        "beamtide/formats/confinement.py",
        "    if kept.get_external_count():",
        "    if not kept:",
        ("tests/unit/test_hdf5_confinement.py",),
    ),
    Sabotage(
        "a link of an HDF5 file leaves its root",
        "beamtide/formats/confinement.py",
        "if place.exists() and not place.is_relative_to(root):",
        "if place.exists() and not root.exists():",
        ("tests/unit/test_hdf5_confinement.py",),
    ),
    Sabotage(
        "strangers are let in where nobody answers",
        "beamtide/pump/gatekeeper.py",
        "    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)",
        "    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 0)",
        ("tests/security/test_authentication.py",),
    ),
    Sabotage(
        "what a role may say is not looked at",
        "beamtide/security/guard.py",
        "        if not may(entry.role, message):",
        "        if False:",
        ("tests/security/test_authentication.py",),
    ),
    Sabotage(
        "who was let through once is let through for ever",
        "beamtide/security/guard.py",
        "        self._passed = set()  # after",
        "        pass  # after",
        ("tests/security/test_authentication.py",),
    ),
    Sabotage(
        "a question that is not answered in its batch waits for ever",
        "beamline_side/cores/deferred.py",
        "                heapq.heappush(self._deadlines, entry)",
        "                pass",
        ("tests/unit/test_session.py",),
    ),
    Sabotage(
        "a key never ends",
        "beamtide/security/key_files.py",
        "        if utc >= self.expires:",
        "        if False:",
        ("tests/security/test_authentication.py",),
    ),
    Sabotage(
        "a link to a key is followed",
        "beamtide/security/key_files.py",
        "os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC",
        "os.O_RDONLY | os.O_CLOEXEC",
        ("tests/security/test_key_files.py",),
    ),
    Sabotage(
        "a task that began early takes frames without their positions",
        "cluster_side/worker/growing.py",
        "    usable = min(pieces[-1].stop if pieces else 0, sight.complete)",
        "    usable = pieces[-1].stop if pieces else 0",
        ("tests/stories/test_growing_story.py",),
    ),
    Sabotage(
        "a task that begins early is another one after an early end",
        "beamline_side/cores/file_tasks.py",
        "    block = (0, planned)",
        "    block = (0, state.points)",
        ("tests/stories/test_file_tasks_story.py",),
    ),
    Sabotage(
        "the object so far moves when the scan grows",
        "cluster_side/modalities/ptychography/live.py",
        "(old - new for old, new in zip(",
        "(0 * (old - new) for old, new in zip(",
        ("tests/unit/test_ptycho_live.py",),
    ),
    Sabotage(
        "a pixel that goes bad late is believed in early frames",
        "cluster_side/modalities/ptychography/frames.py",
        "        counts[:, self._bad] = 0.0\n",
        "",
        ("tests/unit/test_ptycho_live.py",),
    ),
    Sabotage(
        "a task whose result is there is given up all the same",
        VERDICTS,
        "generation=given_up + 1)",
        "generation=given_up)",
    ),
    Sabotage(
        "an old answer of the sink counts",
        DOUBTS,
        "        if generation != answer.generation:",
        "        if generation < 0:",
        DOUBTED,
    ),
    Sabotage(
        "a hole that waits speaks for a retry",
        DOUBTS,
        '        if there.outcome == "abandoned" and there.task.generation < request.task.generation:',
        "        if False:",
        DOUBTED,
    ),
    Sabotage(
        "a retry that is given up overtakes its result",
        SORTER,
        "        if task in self._corrections:\n            return []\n",
        "",
        DOUBTED,
    ),
    Sabotage(
        "results go although they changed since they were filed",
        FILING,
        " and ledger.version <= filed:",
        ":",
        FILED,
    ),
    Sabotage(
        "what was on its way out before a restart stays for ever",
        FILING,
        "            self._leaving.append(record.key)\n",
        "",
        FILED,
    ),
    Sabotage(
        "what is let go is forgotten with its state",
        FILING,
        "[Keep(STATES, product.key, _encode(ledger.state())), Forget",
        "[Forget",
        FILED,
    ),
    Sabotage(
        "a scan with dead letters is filed",
        "beamline_side/services/filed.py",
        "        return any(self._ask",
        "        return False and any(self._ask",
        ("tests/system/test_writer_follows_the_sink.py",),
    ),
)
