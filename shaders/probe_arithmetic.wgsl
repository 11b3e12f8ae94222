// probe: multiply-adds
//
// How fast multiply-adds are: each invocation has ${SUMS} sums of four lanes in registers, which do not wait for each
// other, and each takes ${MULTIPLIES} of them in a step.
//#
//# include  tensors.wgsl
//# host     WORKGROUP (invocations), SUMS, MULTIPLIES; params.work (steps)

const WORKGROUP: u32 = ${WORKGROUP}u;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(local_invocation_index) local: u32) {
    // From memory, so that no compiler knows it; below 1, so that the sums stay small.
    let a = vec4<f32>(load_input(local) * 0.5 + 0.25);
    //% for sum in range(SUMS)
    var sum${sum} = a * ${sum}.5;
    //% endfor
    for (var step = 0u; step < params.work; step++) {
        //% for multiply in range(MULTIPLIES)
            //% for sum in range(SUMS)
        sum${sum} = fma(sum${sum}, a, a);
            //% endfor
        //% endfor
    }

    var total = vec4<f32>(0.0);
    //% for sum in range(SUMS)
    total += sum${sum};
    //% endfor
    store_plain(local, total.x + total.y + total.z + total.w);
}

//% include "tensors.wgsl"
