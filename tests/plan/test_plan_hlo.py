"""The walk over a compiled program: trip counts, cycles, matmuls, wire; on a text small enough to add up by hand."""

import textwrap

import pytest

from stratos_jax.plan import hlo, work

# Three layers (a loop), each a product with an estimate of 100 cycles and a gather over 4 devices that has none.
TEXT = textwrap.dedent("""\
    HloModule jit_f, is_scheduled=true

    FileNames
    1 "/src/stratos_jax/model/network.py"

    FunctionNames
    1 "f"

    FileLocations
    1 {file_name_id=1 function_name_id=1 line=7 end_line=7 column=2 end_column=2}

    StackFrames
    1 {file_location_id=1 parent_frame_id=1}


    %body (arg: (s32[], f32[8,16], bf16[3,4,16])) -> (s32[], f32[8,16], bf16[3,4,16]) {
      %arg = (s32[], f32[8,16]{1,0}, bf16[3,4,16]{2,1,0}) parameter(0)
      %i = s32[] get-tuple-element(%arg), index=0
      %one = s32[] constant(1)
      %next = s32[] add(%i, %one)
      %x = f32[8,16]{1,0} get-tuple-element(%arg), index=1
      %w = bf16[3,4,16]{2,1,0} get-tuple-element(%arg), index=2
      %slice = bf16[4,16]{1,0} fusion(%w, %i), kind=kLoop, calls=%pick, backend_config={"estimated_cycles":"5"}
      %whole = bf16[16,16]{1,0} all-gather(%slice), channel_id=1, replica_groups=[2,4]<=[8], dimensions={0}
      %y = f32[8,16] dot(%x, %whole), metadata={op_name="d" stack_frame_id=1}, backend_config={"estimated_cycles":"99"}
      ROOT %out = (s32[], f32[8,16]{1,0}, bf16[3,4,16]{2,1,0}) tuple(%next, %y, %w)
    }

    %pick (p0: bf16[3,4,16], p1: s32[]) -> bf16[4,16] {
      %p0 = bf16[3,4,16]{2,1,0} parameter(0)
      ROOT %r = bf16[4,16]{1,0} reshape(%p0)
    }

    %condition (arg.1: (s32[], f32[8,16], bf16[3,4,16])) -> pred[] {
      %arg.1 = (s32[], f32[8,16]{1,0}, bf16[3,4,16]{2,1,0}) parameter(0)
      %j = s32[] get-tuple-element(%arg.1), index=0
      %three = s32[] constant(3)
      ROOT %less = pred[] compare(%j, %three), direction=LT
    }

    ENTRY %main (x: f32[8,16], w: bf16[3,4,16]) -> f32[8,16] {
      %x.0 = f32[8,16]{1,0} parameter(0)
      %w.0 = bf16[3,4,16]{2,1,0} parameter(1)
      %zero = s32[] constant(0)
      %start = (s32[], f32[8,16]{1,0}, bf16[3,4,16]{2,1,0}) tuple(%zero, %x.0, %w.0)
      %loop = (s32[], f32[8,16]{1,0}, bf16[3,4,16]{2,1,0}) while(%start), condition=%condition, body=%body
      %result = f32[8,16]{1,0} get-tuple-element(%loop), index=1
      %sum = f32[8,16]{1,0} all-reduce(%result), channel_id=2, replica_groups={{0,1},{2,3}}, to_apply=%pick
      %kernel = f32[8,16]{1,0} custom-call(%sum), custom_call_target="tpu_custom_call"
      ROOT %copy = f32[8,16]{1,0} copy(%kernel), backend_config={"estimated_cycles":"7"}
    }
    """)


@pytest.fixture(scope="module")
def module():
    return hlo.parse(TEXT)


def test_sums(module):
    done = work.measure(module)
    assert done.total_cycles == 3 * (99 + 5) + 7
    assert done.cycles == {"matmul": 297, "elementwise": 15, "copy": 7}
    assert done.matmul_flops == pytest.approx(3 * 2 * 8 * 16 * 16)
    assert done.kernel_calls == {"kernel": 1}
    assert done.unknown_loops == []


def test_wire(module):
    rows = {(c.kind, c.group): (c.executions, c.wire_bytes) for c in work.measure(module).collectives}
    assert rows[("all-gather", 4)] == (3, 3 * (16 * 16 * 2) * 3 / 4)
    assert rows[("all-reduce", 2)] == (1, 2 * (8 * 16 * 4) * 1 / 2)


def test_collectives_of_one_channel_all_count():
    """Inside `shard_map` they share channel 1."""
    line = next(line for line in TEXT.splitlines(keepends=True) if "%whole =" in line)
    doubled = hlo.parse(TEXT.replace(line, line + line.replace("%whole =", "%whole.2 =")))
    rows = {c.kind: (c.executions, c.wire_bytes) for c in work.measure(doubled).collectives}
    assert rows["all-gather"] == (6, 6 * (16 * 16 * 2) * 3 / 4)


def test_which_collectives_leave_their_slice(module):
    crossing = {c.kind: c.crosses_slices for c in work.measure(module, devices_per_slice=2).collectives}
    assert crossing == {"all-gather": True, "all-reduce": False}


def test_source_lines(module):
    product = module.computations["body"]["y"]
    assert module.source(product) == "/src/stratos_jax/model/network.py:7"


@pytest.mark.parametrize(("bound", "direction", "trips"), [("3", "LT", 3), ("5", "LT", 5), ("3", "LE", 4)])
def test_trip_counts(bound, direction, trips):
    text = TEXT.replace("constant(3)", f"constant({bound})").replace("direction=LT", f"direction={direction}")
    parsed = hlo.parse(text)
    entry = parsed.computations[parsed.entry]
    assert hlo.trip_count(parsed, entry, entry["loop"]) == trips


def test_a_loop_of_unknown_length_is_said():
    text = TEXT.replace("%three = s32[] constant(3)", "%three = s32[] get-tuple-element(%arg.1), index=0")
    assert work.measure(hlo.parse(text)).unknown_loops == ["loop"]


@pytest.mark.parametrize(
    ("text", "size"),
    [("bf16[4,16]{1,0:T(8,128)}", 128), ("(f32[2], s32[])", 12), ("pred[8]{0}", 8), ("f8e4m3fn[8]", 8), ("u4[8]", 4)],
)
def test_bytes(text, size):
    assert sum(shape.bytes for shape in hlo.parse_shapes(text)) == size


def test_on_chip_memory_is_not_hbm():
    vmem, host, hbm = hlo.parse_shapes("(f32[2]{0:S(1)}, f32[2]{0:S(5)}, f32[2]{0:T(128)})")
    assert (vmem.in_hbm, host.in_hbm, hbm.in_hbm) == (False, False, True)
