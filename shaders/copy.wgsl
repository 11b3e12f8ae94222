// ${recipe}: a box of a tensor, into a band or back
//
// A band of a tensor whose elements do not lie side by side, or start where no binding may, is copied to where they do;
// an output band is copied back. What lies outside of the tensor becomes zero, so that padding is copied as well.
//
// from     the tensor or the band
// to       the other
//#
//# host     WORKGROUP (invocations), STEPS (units of each), VALUE (the type of a unit: "u32", or "vec4<u32>" for four
//#          words), HALVES (whether it is half a word)

const WORKGROUP: u32 = ${WORKGROUP}u;
const STEPS: u32 = ${STEPS}u;

// As the host has it: `Params` of src/kernels/copy.rs. Sizes are in units.
struct Params {
    // Extents of the box, the outermost first; elements of the last, the runs, lie side by side.
    extents: vec4<u32>,
    // Where the box starts, then the distances of its three outer extents: in what is read, in what is written.
    reads: vec4<u32>,
    writes: vec4<u32>,
    // From where on each extent is there to be read, and how much of it.
    least: vec4<u32>,
    count: vec4<u32>,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> source: array<${VALUE}>;
//% if HALVES
// The other half of a word may be written by another invocation, or be none of the band's.
@group(0) @binding(2) var<storage, read_write> destination: array<atomic<u32>>;

fn load(at: u32) -> u32 {
    return (source[at / 2u] >> (at % 2u * 16u)) & 0xffffu;
}

fn store(at: u32, half: u32) {
    // No other invocation changes this half, so it is still the old one when it is changed.
    let place = at % 2u * 16u;
    let old = (atomicLoad(&destination[at / 2u]) >> place) & 0xffffu;
    atomicXor(&destination[at / 2u], (old ^ half) << place);
}
//% else
@group(0) @binding(2) var<storage, read_write> destination: array<${VALUE}>;

fn load(at: u32) -> ${VALUE} {
    return source[at];
}

fn store(at: u32, value: ${VALUE}) {
    destination[at] = value;
}
//% endif

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = workgroup.x + workgroup.y * grid.x;
    let length = params.extents.w;
    if length <= WORKGROUP {
        // Several short runs at a time.
        let together = WORKGROUP / length;
        let first = index * together * STEPS + local / length;
        for (var step = 0u; step < STEPS; step++) {
            if local < together * length {
                copy(place(first + step * together), local % length);
            }
        }
    } else {
        let chunks = (length + WORKGROUP * STEPS - 1u) / (WORKGROUP * STEPS);
        let run = place(index / chunks);
        let first = index % chunks * (WORKGROUP * STEPS) + local;
        for (var step = 0u; step < STEPS; step++) {
            copy(run, first + step * WORKGROUP);
        }
    }
}

// A run: where it starts, whether there is one, and whether it is there to be read.
struct Run {
    from_at: u32,
    to_at: u32,
    exists: bool,
    is_there: bool,
}

fn place(run: u32) -> Run {
    let plane = run / params.extents.z;
    let at = vec3<u32>(plane / params.extents.y, plane % params.extents.y, run % params.extents.z);
    // Where the run is not there to be read, its start wraps around.
    let from_outer = at * params.reads.yzw;
    let to_outer = at * params.writes.yzw;
    return Run(
        params.reads.x + from_outer.x + from_outer.y + from_outer.z,
        params.writes.x + to_outer.x + to_outer.y + to_outer.z,
        at.x < params.extents.x,
        all(at - params.least.xyz < params.count.xyz),
    );
}

fn copy(run: Run, unit: u32) {
    if run.exists & (unit < params.extents.w) {
        let inside = run.is_there & (unit - params.least.w < params.count.w);
        let value = load(select(0u, run.from_at + unit, inside));
        store(run.to_at + unit, select(${VALUE}(), value, inside));
    }
}
