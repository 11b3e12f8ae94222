//% set memory = "workgroup memory" if in_workgroup_memory else "storage"
// probe: loads from ${memory}
//
// How fast loads from ${memory} are: each invocation makes eight in a step, and neighbours load
// neighbours. They walk over ELEMENTS, which a first-level cache holds.
//#
//# include  tensors.wgsl
//# host     WORKGROUP (invocations), ELEMENTS, in_workgroup_memory (whether the loads are from there); params.work
//#          (steps)

const WORKGROUP: u32 = ${WORKGROUP}u;
const ELEMENTS: u32 = ${ELEMENTS}u;
//% if in_workgroup_memory

var<workgroup> tile: array<f32, ELEMENTS>;
//% endif

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(local_invocation_index) local: u32) {
    //% if in_workgroup_memory
    for (var at = local; at < ELEMENTS; at += WORKGROUP) {
        tile[at] = load_input(at);
    }
    workgroupBarrier();

    //% endif
    var sum = vec4<f32>(0.0);
    var at = local;
    for (var step = 0u; step < params.work; step++) {
        //% for quad in range(2)
        let quad${quad} = vec4<f32>(
            //% for next in range(4 * quad, 4 * quad + 4)
            load(at${plus(next, "WORKGROUP")}),
            //% endfor
        );
        //% endfor
        sum = fma(quad0, quad1, sum);
        at += 8u * WORKGROUP;
    }
    store_plain(local, sum.x + sum.y + sum.z + sum.w);
}

fn load(at: u32) -> f32 {
    //% if in_workgroup_memory
    return tile[at % ELEMENTS];
    //% else
    return load_input(at % ELEMENTS);
    //% endif
}

//% include "tensors.wgsl"
