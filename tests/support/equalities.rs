//! What gives the same rows to the last bit, however they are computed: alone or in a batch, whole or in chunks, fused
//! or in parts, launched or replayed. Each function takes the devices to hold to it, and tells what fails.

#![allow(dead_code, reason = "each program that includes it uses a part")]

use crate::support::cases::{self, Besides, Case, Family, Gated, Heads, Order, PLAIN, Seen, Size};
use crate::support::devices::on_all_cores;
use flamant::config::{Activation, Norm};
use flamant::probe::{
    Axis, Batch, Capacity, Device, Epilogue, Graph, KvConfig, MediaSeen, Numbers, Place, Plans, Probe, Request,
};

/// Holds devices to an equality; what fails.
pub type Equality = fn(&[Place]) -> Vec<String>;

/// All of them, by name.
pub const ALL: [(&str, Equality); 10] = [
    ("rows of linear layers", rows_of_linear_layers),
    ("chunks of a prompt", chunks_of_a_prompt),
    ("sequences", sequences),
    ("keys in common", keys_in_common),
    ("gated blocks", gated_blocks),
    ("grouped heads", grouped_heads),
    ("images and tokens", images_and_tokens),
    ("keys and values in 8 bits", keys_and_values_in_8_bits),
    ("replayed steps", replayed_steps),
    ("choices", choices),
];

/// What one run of a case gave, or why there is nothing.
pub fn rows(case: &Case, place: &Place) -> Result<Vec<f32>, String> {
    case.run(place).map_err(|error| error.to_string())
}

/// The bits, so that NaN equals itself and 0 is not -0.
pub fn bits(rows: &[f32]) -> Vec<u32> {
    rows.iter().map(|x| x.to_bits()).collect()
}

/// A device as failures name it.
fn named(place: &Place) -> String {
    let storage = place.dtype.expect("devices that run kernels have a storage type");
    format!("{storage} on {}, {:?}", place.device, place.emulated.matrix_units)
}

/// Why rows of a batch are not those of the same rows alone; each case comes with the place of its first row in the
/// batch's output.
fn other_rows(places: &[Place], batch: &Case, alone: &[(Case, usize)]) -> Vec<String> {
    let mut failures = Vec::new();
    for place in places {
        let whole = rows(batch, place);
        for (alone, at) in alone {
            let start = at * alone.width();
            let same = whole.clone().and_then(|whole| {
                let found = rows(alone, place)?;
                Ok(bits(&whole[start..][..found.len()]) == bits(&found))
            });
            if same != Ok(true) {
                let why = same.err().unwrap_or_else(|| "other bits".to_owned());
                failures.push(format!("{} in {}, {}: {why}", alone.name, batch.name, named(place)));
            }
        }
    }
    failures
}

/// Rows of a batch, columns and width of a linear layer, rows that are computed alone. On an emulator that claims to be
/// a Hopper all forms of the kernel are among them.
pub const LINEAR_BATCHES: [(usize, usize, usize, &[usize]); 4] = [
    (200, 1040, 70, &[1, 2, 3, 9, 17, 32, 33, 64, 65, 130]),
    (130, 1040, 131, &[2, 5, 8, 16, 50, 70]),
    (130, 272, 200, &[1, 16, 17, 70]),
    (70, 272, 19, &[1, 16]),
];

pub fn rows_of_linear_layers(places: &[Place]) -> Vec<String> {
    let epilogues = [
        PLAIN,
        Besides { bias: true, activation: Some(Activation::Gelu), logits: true, ..PLAIN },
        Besides { activation: Some(Activation::Silu), paired: true, ..PLAIN },
        Besides { bias: true, gate: Gated::Vector, residual: true, ..PLAIN },
        Besides { gate: Gated::Scalar, residual: true, seeing_only: true, ..PLAIN },
    ];
    let of = |count, columns, width, besides| cases::linear(Size::Small, count, columns, width, besides).on_hopper();
    let failures = on_all_cores(&epilogues, |&besides| {
        let each = LINEAR_BATCHES.iter().flat_map(|&(batch, columns, width, counts)| {
            let alone = counts.iter().map(|&count| (of(count, columns, width, besides), 0));
            other_rows(places, &of(batch, columns, width, besides), &alone.collect::<Vec<_>>())
        });
        each.collect::<Vec<_>>()
    });
    failures.concat()
}

pub const ATTENTION: [(Heads, Order); 6] = [
    (cases::heads(2, 64), Order::Rotary(64)),
    (cases::heads(1, 80), Order::Rotary(32)),
    (cases::heads(2, 48), Order::Alibi),
    (cases::heads(1, 128), Order::None),
    (cases::grouped(8, 2, 32), Order::Alibi),
    (cases::grouped(3, 1, 80), Order::Rotary(80)),
];

/// A token's row does not tell whether the tokens before it were there already, or came with it.
pub fn chunks_of_a_prompt(places: &[Place]) -> Vec<String> {
    const TOKENS: u32 = 150;
    let failures = on_all_cores(&ATTENTION, |&(heads, order)| {
        let read = |what: &str, counts: &[u32]| {
            let runs: Vec<[(usize, u32); 1]> = counts.iter().map(|&count| [(0, count)]).collect();
            let runs: Vec<&[(usize, u32)]> = runs.iter().map(|run| &run[..]).collect();
            cases::causal(Size::Small, what, heads, order, &[0], &runs)
        };
        let chunked = [vec![64, 64, 22], vec![17, 66, 1, 16, 50], vec![5; 30], vec![1; 150]].map(|chunks| {
            assert_eq!(chunks.iter().sum::<u32>(), TOKENS);
            (read(&format!("{} chunks", chunks.len()), &chunks), 0)
        });
        other_rows(places, &read("whole", &[TOKENS]), &chunked)
    });
    failures.concat()
}

pub fn sequences(places: &[Place]) -> Vec<String> {
    let failures = on_all_cores(&ATTENTION, |&(heads, order)| {
        let mut failures = Vec::new();
        // Decoding, decoding with a chunk beside it, and chunks: few keys are split over blocks, many are walked.
        for counts in [[1, 1, 1, 1], [1, 16, 3, 2], [1, 70, 1, 20]] {
            let filled = [130, 3, 64, 200];
            let batch: Vec<(usize, u32)> = (0..4).zip(counts).collect();
            let together = cases::causal(Size::Small, "together", heads, order, &filled, &[&batch]);
            let mut at = 0;
            let alone = (0..4).map(|sequence| {
                let mut others = [0; 4];
                others[sequence] = filled[sequence];
                let one =
                    cases::causal(Size::Small, "alone", heads, order, &others, &[&[(sequence, counts[sequence])]]);
                at += counts[sequence] as usize;
                (one, at - counts[sequence] as usize)
            });
            failures.extend(other_rows(places, &together, &alone.collect::<Vec<_>>()));
        }
        failures
    });
    failures.concat()
}

/// Keys in pages that sequences have in common are read once for many of them.
pub fn keys_in_common(places: &[Place]) -> Vec<String> {
    let failures = on_all_cores(&ATTENTION, |&(heads, order)| {
        let mut failures = Vec::new();
        for forked in [cases::forked_few, cases::forked_many] {
            let [together, apart] = [true, false].map(|in_common| forked(heads, order, in_common));
            failures.extend(other_rows(places, &together, &[(apart, 0)]));
        }
        failures
    });
    failures.concat()
}

/// The fused kernel of few tokens is the parts that many tokens take.
pub fn gated_blocks(places: &[Place]) -> Vec<String> {
    let kinds = [
        (Family::OpenFlamingo, 48, cases::heads(2, 64), 66),
        (Family::OpenFlamingo, 272, cases::heads(3, 16), 9),
        (Family::Idefics, 112, cases::heads(2, 96), 64),
        (Family::Idefics, 1040, cases::heads(1, 128), 130),
        (Family::Idefics, 80, cases::heads(2, 80), 5),
        (Family::Llama, 112, cases::grouped(6, 2, 32), 66),
    ];
    let failures = on_all_cores(&kinds, |&(family, width, heads, latents)| {
        let mut failures = Vec::new();
        let block = |media: &[MediaSeen]| cases::gated(Size::Small, family, width, heads, &[latents; 3], media);
        for seen in [Seen::Mixed, Seen::Interleaved, Seen::Last] {
            let media = seen.list(81, 3);
            let few = [1, 2, 7, 8, 9, 40].map(|count| (block(&media[..count]), 0));
            failures.extend(other_rows(places, &block(&media), &few));
        }
        failures
    });
    failures.concat()
}

/// Heads of keys that a group shares give what each head gives with keys of its own that are the same.
pub fn grouped_heads(places: &[Place]) -> Vec<String> {
    use Size::Small;
    let kinds = [(32, 8, 16), (8, 1, 64), (12, 4, 80)];
    let failures = on_all_cores(&kinds, |&(count, kv, width)| {
        let media = Seen::Neighbours.list(70, 3);
        let decoded: &[(usize, u32)] = &[(0, 1), (1, 1), (2, 5), (3, 40)];
        let attentions: [&dyn Fn(Heads) -> Case; 5] = [
            &|heads| cases::causal(Small, "grouped", heads, Order::Rotary(width), &[130, 3, 64, 20], &[decoded]),
            &|heads| cases::causal(Small, "grouped", heads, Order::Alibi, &[130, 3, 64, 20], &[decoded]),
            &|heads| cases::masked(Small, heads, &[330, 200, 65], &media, true),
            &|heads| cases::masked(Small, heads, &[330, 200, 65], &media[..3], false),
            &|heads| cases::gated(Small, Family::Idefics, 112, heads, &[66; 3], &media[..7]),
        ];
        let grouped = cases::grouped(count, kv, width);
        let pairs = attentions.map(|attention| {
            let repeated = attention(cases::heads(count, width)).repeating(grouped);
            other_rows(places, &repeated, &[(attention(grouped), 0)])
        });
        pairs.concat()
    });
    failures.concat()
}

pub fn images_and_tokens(places: &[Place]) -> Vec<String> {
    use Size::Small;
    let heads = cases::heads(2, 96);
    let (media, neighbours) = (Seen::Mixed.list(90, 3), Seen::Neighbours.list(90, 3));
    let shared = cases::grouped(6, 2, 48);
    let tiled = |images| cases::tiled(&[(6, 2), (5, 4), (1, 1)][..images], 4);
    let pairs: Vec<[Case; 2]> = vec![
        [3, 1].map(|images| cases::vision(Small, images, 66, cases::heads(2, 80))),
        [3, 2].map(|images| cases::image(Small, images, heads, 9, &[70, 9], true)),
        [3, 1].map(|images| cases::tiles(Small, tiled(images), 37, 3, cases::heads(2, 80))),
        [3, 1].map(|images| cases::tile_patches(Small, tiled(images), 28, 14, 48)),
        [3, 1].map(|images| cases::tile_positions(Small, tiled(images), 5, 48)),
        [3, 1].map(|images| cases::tile_embedding(Small, tiled(images), 6, 2, 48)),
        // All tiles there, none filled up: rows that see each other.
        [
            cases::vision(Small, 2, 148, cases::heads(2, 80)),
            cases::tiles(Small, cases::tiled(&[(5, 4), (8, 4)], 4), 37, 0, cases::heads(2, 80)),
        ],
        [3, 1].map(|images| cases::patches(Small, images, 56, 14, 48)),
        [90, 1].map(|count| cases::masked(Small, heads, &[65; 3], &media[..count], true)),
        [90, 17].map(|count| cases::masked(Small, heads, &[65; 3], &media[..count], false)),
        // Images of several pages: walked by many tokens, split over blocks for few.
        [90, 1].map(|count| cases::masked(Small, heads, &[330, 200, 65], &media[..count], true)),
        [90, 7].map(|count| cases::masked(Small, shared, &[330, 200, 65], &neighbours[..count], true)),
        [70, 1].map(|count| cases::norm(Small, Norm::Layer, true, count, 272)),
        [70, 3].map(|count| cases::norm(Small, Norm::Rms, false, count, 4112)),
        [33, 1].map(|count| cases::norm_heads(Small, Norm::Layer, true, count, 3, 48)),
    ];
    let failures = on_all_cores(&pairs, |[batch, alone]| other_rows(places, batch, &[(alone.clone(), 0)]));
    failures.concat()
}

/// In 8 bits as in others, rows tell nothing of their batch; and where 8 bits hold all numbers exactly, they are those
/// of pages in the device's own storage.
pub fn keys_and_values_in_8_bits(places: &[Place]) -> Vec<String> {
    use Size::Small;
    let (rotary, alibi) = (cases::heads(2, 64), cases::grouped(12, 4, 80));
    let whole = |what, runs: &[&[(usize, u32)]]| cases::causal(Small, what, rotary, Order::Rotary(64), &[0], runs);
    let media = Seen::Neighbours.list(40, 3);
    let gated = |count: usize| {
        let heads = cases::grouped(6, 2, 32);
        cases::gated(Small, Family::Llama, 112, heads, &[66; 3], &Seen::Mixed.list(40, 3)[..count])
    };
    let filled = [130, 3, 64, 20];
    let decoded =
        |what, order| cases::causal(Small, what, alibi, order, &filled, &[&[(0, 1), (1, 1), (2, 5), (3, 40)]]);
    let masked = |count: usize| cases::masked(Small, cases::grouped(6, 2, 48), &[330, 200, 65], &media[..count], true);
    let alike: Vec<[Case; 2]> = vec![
        [whole("whole", &[&[(0, 100)]]), whole("chunked", &[&[(0, 17)], &[(0, 66)], &[(0, 1)], &[(0, 16)]])],
        [true, false].map(|in_common| cases::forked_few(alibi, Order::Alibi, in_common)),
        [masked(40), masked(7)],
        [gated(40), gated(7)],
    ];
    let mut pairs: Vec<[Case; 2]> = alike.into_iter().map(|pair| pair.map(Case::int8)).collect();
    let exact = [
        decoded("codes", Order::Alibi).of_codes(80),
        cases::causal(Small, "codes", cases::heads(1, 128), Order::None, &[0], &[&[(0, 70)]]).of_codes(128),
        masked(40).of_codes(48),
        masked(7).of_codes(48),
        gated(7).of_codes(32),
    ];
    pairs.extend(exact.map(|case| [case.clone(), case.int8()]));
    let failures = on_all_cores(&pairs, |[batch, alone]| other_rows(places, batch, &[(alone.clone(), 0)]));
    failures.concat()
}

/// A step's launches are kept and captured, then replayed: each time with the same bits, on new numbers too.
pub fn replayed_steps(places: &[Place]) -> Vec<String> {
    let heads = cases::heads(2, 64);
    let decode: &[(usize, u32)] = &[(0, 1), (1, 1), (2, 1)];
    let steps = [decode; 6];
    let media = Seen::Mixed.list(3, 3);
    let kept = [
        cases::causal(Size::Small, "decode", heads, Order::Rotary(64), &[130, 63, 5], &[decode]),
        cases::gated(Size::Small, Family::Idefics, 112, heads, &[9; 3], &media),
        cases::gated(Size::Small, Family::Idefics, 112, heads, &[330, 200, 65], &media),
    ];
    let failures = on_all_cores(places, |place| {
        let mut failures = Vec::new();
        for case in &kept {
            let same = rows(case, place).and_then(|once| {
                let again = rows(&case.clone().repeated(4), place)?;
                Ok(again.chunks_exact(once.len()).all(|again| bits(again) == bits(&once)))
            });
            if same != Ok(true) {
                failures.push(format!("{} again and again, {}: {same:?}", case.name, named(place)));
            }
        }
        // Six steps in a row, of one shape, are six steps each made as the first.
        let walked = cases::causal(Size::Small, "steps", heads, Order::Alibi, &[130, 63, 5], &steps);
        let want = rows(&walked, &Place { threads: 1, ..Place::new(Device::Cpu, None) });
        let dtype = place.dtype.expect("devices that run kernels have a storage type");
        let as_wanted = rows(&walked, place).and_then(|found| walked.compare(&found, &want?, dtype));
        failures.extend(as_wanted.err().map(|why| format!("{}, {}: {why}", walked.name, named(place))));
        failures
    });
    failures.concat()
}

/// More rows are drawn than there is workspace for at once, some greedily among them, and rows of logits are left over:
/// each row's choice is the one it has in a batch of few, and the rows that are left are those that were not asked for.
pub fn choices(places: &[Place]) -> Vec<String> {
    const ROWS: usize = 150;
    const COLUMNS: usize = 16;
    const TOKENS: usize = 90;
    let mut seed = 1u32;
    let mut numbers = |count: usize| -> Vec<f32> {
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((seed >> 24) as f32 - 127.0) / 64.0
        };
        (0..count).map(|_| next()).collect()
    };
    let (x, matrix) = (numbers(ROWS * COLUMNS), numbers(TOKENS * COLUMNS));
    let request = |row: usize| match row % 5 {
        3 => Request::Targets((0..row % 4).map(|i| (row * (i + 1) % TOKENS) as u32).collect()),
        4 => Request::TopK { count: [1, 6, TOKENS + 2][row % 3], score: -(row as f32) },
        _ => Request::Sample {
            temperature: [0.0, 1.0, 2.5][row % 3],
            top_k: [0, 9][row % 2],
            top_p: [1.0, 0.7, 0.9, 1.0][row % 4],
            uniform: row as f64 / ROWS as f64,
        },
    };
    let requests: Vec<Request> = (0..ROWS - 1).map(request).collect();
    let failures = on_all_cores(places, |place| {
        let mut failures = Vec::new();
        let (mut graph, mut weights) = (Graph::new(), Numbers::default());
        let input = graph.input(Axis::Tokens, 1, COLUMNS);
        let wanted = graph.select(input);
        let weight = weights.matrix(TOKENS, COLUMNS, matrix.clone());
        let logits = graph.linear(wanted, weight, None, Epilogue::default());
        let (media, text) = (Graph::new().plan(&[], None), graph.plan(&[input], Some(logits)));
        let plans = Plans { media, text, features: None, tiles: None };
        let capacity = Capacity { images: 0, tokens: 8 };
        let mut probe = Probe::open(place, weights, plans, KvConfig::default(), capacity).unwrap();
        let mut sample = |outputs: &[u32], requests: &[Request]| {
            let zeros = [0; ROWS];
            let batch = Batch {
                inputs: &[&x],
                ids: &zeros,
                positions: &zeros,
                sequences: &zeros,
                tables: &[&[]],
                media: &[MediaSeen::NOTHING; ROWS],
                outputs,
                ..Batch::default()
            };
            probe.sample(&batch, requests, &[3, 50]).unwrap()
        };
        let outputs: Vec<u32> = (0..ROWS as u32).rev().collect();
        let (together, rest) = sample(&outputs, &requests);
        // 1 row, 2 rows, and so on.
        let parts = (0..17).map(|part| part * (part + 1) / 2..((part + 1) * (part + 2) / 2).min(ROWS - 1));
        for rows in parts {
            let (alone, _) = sample(&outputs[rows.clone()], &requests[rows.clone()]);
            if alone != together[rows.clone()] {
                failures.push(format!("choices of rows {rows:?} alone, {}", named(place)));
            }
        }
        if sample(&outputs[ROWS - 1..], &[]).1 != rest || rest.len() != TOKENS {
            failures.push(format!("the row of logits that is left, {}", named(place)));
        }
        failures
    });
    failures.concat()
}
