// Where elements of tensors are that lie in others: an element's number in its own tensor, by which kernels go, becomes
// its number in the tensor that has it.
//#
//# host     input_view, output_view, residual_view; each is false, or has
//#          kind       "channels": it is channels of the other; "shuffled": its channels are rectangles of the other's
//#                     pixels; "unshuffled": its rectangles of pixels are channels of the other; "enlarged": each pixel
//#                     of the other is a rectangle of its own
//#          is_nchw    whether both are NCHW; else they are NHWC
//#          is_single  whether there is one image
//#          channels   how many it has, and `whole` the other; `squared`: how many of its own a rectangle has
//#          first, gap the channel of the other where its own begin, and how many of the other's are not its own
//#          rows, columns  those of a rectangle
//#          neighbours how many neighbours, the first at a multiple of that number, are so there: 4, 2 or 1
//#          params.view_in_pixels, params.view_out_pixels, params.view_out_width: of its own images
//% for tensor, view in [["input", input_view], ["output", output_view], ["residual", residual_view]]
    //% if view
        //% set pixels = "params.view_in_pixels" if tensor == "input" else "params.view_out_pixels"
        //% for suffix, index in [["", "u32"], ["4", "vec4<u32>"]]
            //% if view.kind == "channels"
// The ${tensor} is channels ${view.first} to ${view.first + view.channels - 1} of another tensor.
fn ${tensor}_place${suffix}(at: ${index}) -> ${index} {
                //% if not view.is_nchw
    return at + at / ${view.channels}u * ${view.gap}u${plus(view.first)};
                //% elif view.is_single
    return at + ${view.first}u * ${pixels};
                //% else
    let image = at / (${view.channels}u * ${pixels});
    return at + (image * ${view.gap}u${plus(view.first)}) * ${pixels};
                //% endif
}
            //% elif view.kind == "shuffled"
// Of the ${tensor}, ${view.squared} channels are ${view.rows} rows and ${view.columns} columns of another tensor.
fn ${tensor}_place${suffix}(at: ${index}) -> ${index} {
                //% if view.is_nchw
    let row = at / params.view_out_width;
    let x = at - row * params.view_out_width;
    let height = ${pixels} / params.view_out_width;
    let plane = row / height;
    let y = row - plane * height;
    let part = plane % ${view.squared}u;
    let line = (plane / ${view.squared}u * height + y) * ${view.rows}u + part / ${view.columns}u;
    return (line * params.view_out_width + x) * ${view.columns}u + part % ${view.columns}u;
                //% else
    let pixel = at / ${view.channels}u;
    let channel = at - pixel * ${view.channels}u;
    let row = pixel / params.view_out_width;
    let x = pixel - row * params.view_out_width;
    let part = channel % ${view.squared}u;
    let line = row * ${view.rows}u + part / ${view.columns}u;
    let column = (line * params.view_out_width + x) * ${view.columns}u + part % ${view.columns}u;
    return column * ${view.whole}u + channel / ${view.squared}u;
                //% endif
}
            //% elif view.kind == "unshuffled"
// Of the ${tensor}, ${view.rows} rows and ${view.columns} columns are ${view.squared} channels of another tensor.
fn ${tensor}_place${suffix}(at: ${index}) -> ${index} {
    let other_width = params.view_out_width / ${view.columns}u;
                //% if view.is_nchw
    let row = at / params.view_out_width;
    let x = at - row * params.view_out_width;
    let height = ${pixels} / params.view_out_width;
    let plane = row / height;
    let y = row - plane * height;
    let channel = (plane * ${view.rows}u + y % ${view.rows}u) * ${view.columns}u + x % ${view.columns}u;
    return (channel * (height / ${view.rows}u) + y / ${view.rows}u) * other_width + x / ${view.columns}u;
                //% else
    let pixel = at / ${view.channels}u;
    let channel = at - pixel * ${view.channels}u;
    let row = pixel / params.view_out_width;
    let x = pixel - row * params.view_out_width;
    let other = row / ${view.rows}u * other_width + x / ${view.columns}u;
    return other * ${view.whole}u + (channel * ${view.rows}u + row % ${view.rows}u) * ${view.columns}u + x % ${view.columns}u;
                //% endif
}
            //% else
// Of the ${tensor}, ${view.rows} rows and ${view.columns} columns are a pixel of another tensor.
fn ${tensor}_place${suffix}(at: ${index}) -> ${index} {
                //% if view.is_nchw
    let row = at / params.view_out_width;
    let x = at - row * params.view_out_width;
    return row / ${view.rows}u * (params.view_out_width / ${view.columns}u) + x / ${view.columns}u;
                //% else
    let pixel = at / ${view.channels}u;
    let channel = at - pixel * ${view.channels}u;
    let row = pixel / params.view_out_width;
    let x = pixel - row * params.view_out_width;
    let other = row / ${view.rows}u * (params.view_out_width / ${view.columns}u) + x / ${view.columns}u;
    return other * ${view.channels}u + channel;
                //% endif
}
            //% endif

        //% endfor
    //% endif
//% endfor
