"""Convolution and linear layers: im2col folded into the GEMM, and Winograd's way with fewer multiplications.

    algorithms        the ordered list of them; forward and both gradients choose from it, by shape alone
    geometry          the sizes of a convolution
    scratch           memory of a call in regions: booked, then got
    windows           blocks of input rows with their zero border
    packing           weights in panels, as wide as a register tile
    correlation       images with packed weights: blocks, and their order
    forward, input_gradient, weight_gradient          the algorithm `direct`
    strips            its forward of a filter a channel together with the 1x1 convolutions around it
    winograd, winograd_input_gradient, winograd_gradient   the algorithm `winograd`: 3x3 and 5x5, stride 1

Of `direct`: the column matrix is never stored. Pixels lie in NHWC memory, so what a filter row reads of one pixel is
one run of consecutive elements; register tiles walk such runs ("segments") for several pixels at once:

    input (N, H, W, C) --copy with zero border, a block of rows per task (skipped where nothing is padded)--> window
    weight (K, C, R, S) --pack: nr filters side by side--> panels
    window x panels --kernel `rows`--> output (N, P, Q, K)                        forward, epilogue included
        (few filters: the window in planes, one per channel; kernel `planes`, vectors over pixels)
        (few filters, several images: these abreast, one a lane; kernel `abreast`, the input gradient's, too)
        (a filter a channel: images as they lie, zeros beside them in registers; kernel `depthwise`, both ways)
    grad_output x flipped panels --kernel `rows`, one call a phase of the stride--> grad_input
    window x grad_output --kernel `outer`--> shards of (R * S * C, K) --fixed tree--> grad_weight
        (where a filter row's weights fill vectors better: shards of (K, R * S * C), the operands swapped)
        (few filters, shards of whole images: a shard a lane; kernel `abreast_outer`)

Order of sums of `direct`, whatever the blocking: forward (r, s, c) ascending; grad_input ascending addresses of
grad_output, that is (r, s) descending, then k; grad_weight pixels (n, p, q) ascending within a shard, shards cut by
shape alone and added pairwise. Zero padding takes part in the sums as zeros, but for rows of the filter that lie
wholly above or below the image: those are left out. (Images abreast leave out columns, too, where no bit tells it:
where weights are finite and no sum is -0.)
"""
