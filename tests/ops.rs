//! Every operation on every device that runs kernels: against the processor, against itself under other schedules, and
//! against itself in other batches.

mod cases;
#[path = "common/devices.rs"]
mod devices;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use cases::{Besides, Case, Family, Gated, Heads, Order, PLAIN, Seen, Size};
use devices::{PRECISIONS, on_all_cores, with_kernels};
use flamant::config::{Activation, Norm};
use flamant::probe::emulated::{Schedule, Settings};
use flamant::probe::{
    Axis, Batch, Device, Epilogue, Graph, Numbers, Place, Plans, Pools, Precision, Probe, Request, Usual,
};

/// A device; the emulator on one thread, since cases run side by side.
fn place(device: Device, precision: Precision, settings: Settings) -> Place {
    Place { emulated: Settings { workers: 1, ..settings }, ..Place::new(device, Some(precision)) }
}

fn plain(device: Device, precision: Precision) -> Place {
    place(device, precision, Settings::default())
}

/// The processor's rows.
fn wanted(case: &Case, threads: usize) -> Vec<f32> {
    case.run(&Place { threads, ..Place::new(Device::Cpu, None) }).unwrap()
}

fn none_failed(failures: Vec<String>) {
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
}

/// What one run of a case gave, or why there is nothing.
fn rows(case: &Case, place: &Place) -> Result<Vec<f32>, String> {
    case.run(place).map_err(|error| error.to_string())
}

/// The bits, so that NaN equals itself and 0 is not -0.
fn bits(rows: &[f32]) -> Vec<u32> {
    rows.iter().map(|x| x.to_bits()).collect()
}

/// Why a device's rows are not the processor's.
fn other_results(case: &Case, device: Device, precision: Precision, want: &[f32]) -> Option<String> {
    let found = rows(case, &plain(device, precision));
    let wrong = found.and_then(|found| {
        if std::env::var_os("FLAMANT_SHOW_DISTANCES").is_some() {
            let (mean, largest) = cases::distance(&found, want, case.width());
            eprintln!("{mean:.2e} {largest:.4} {precision} {device} {}", case.name);
        }
        case.compare(&found, want, precision)
    });
    wrong.err().map(|why| format!("{}, {precision} on {device}: {why}", case.name))
}

#[test]
fn every_operation_is_the_processors() {
    let devices = with_kernels();
    let failures = on_all_cores(&cases::small(), |case| {
        let want = wanted(case, 1);
        let each = devices.iter().flat_map(|&device| PRECISIONS.map(|precision| (device, precision)));
        each.filter_map(|(device, precision)| other_results(case, device, precision, &want)).collect::<Vec<_>>()
    });
    none_failed(failures.concat());
}

/// On a GPU all of them; in the emulator those of few operations.
#[test]
fn shapes_of_real_models_are_the_processors() {
    const EMULATED_FLOPS_MAX: u64 = 300_000_000;
    let (real, devices) = (cases::real(), with_kernels());
    let few: Vec<&Case> = real.iter().filter(|case| case.flops() <= EMULATED_FLOPS_MAX).collect();
    let check = |case: &&Case| other_results(case, Device::Emulated, Precision::Bf16, &wanted(case, 1));
    let mut failures: Vec<String> = on_all_cores(&few, check).into_iter().flatten().collect();
    for device in devices.into_iter().filter(|device| *device != Device::Emulated) {
        for case in &real {
            let want = wanted(case, 0);
            failures
                .extend(PRECISIONS.into_iter().filter_map(|precision| other_results(case, device, precision, &want)));
        }
    }
    none_failed(failures);
}

/// Threads may take turns in any order, and asynchronous copies may land at any time that is allowed. No shared memory
/// is read before it is written, or while another thread writes it.
#[test]
fn turns_and_copies_never_change_a_bit() {
    let check = |case: &Case| -> Vec<String> {
        let mut failures = Vec::new();
        for precision in PRECISIONS {
            let want = rows(case, &plain(Device::Emulated, precision)).map(|rows| bits(&rows));
            for schedule in [Schedule::Plain, Schedule::Warps, Schedule::Lanes] {
                for (seed, early_copies) in [(1, false), (2, true), (3, false)] {
                    if schedule == Schedule::Plain && seed > 2 {
                        continue;
                    }
                    let settings = Settings { schedule, seed, early_copies, checked: true, ..Settings::default() };
                    let found = rows(case, &place(Device::Emulated, precision, settings)).map(|rows| bits(&rows));
                    if found != want {
                        let why = found.err().unwrap_or_else(|| "other bits".to_owned());
                        let how = format!("{schedule:?}, seed {seed}, early copies {early_copies}");
                        failures.push(format!("{}, {precision}, {how}: {why}", case.name));
                    }
                }
            }
        }
        failures
    };
    none_failed(on_all_cores(&cases::small(), check).concat());
}

/// Every kernel that a plan can start is started by some case; those that choose and make up numbers have tests of
/// their own.
#[test]
fn every_kernel_is_started() {
    let counted = Arc::new(Mutex::new(Vec::new()));
    let settings = Settings { counted: Some(counted.clone()), ..Settings::default() };
    on_all_cores(&cases::small(), |case| {
        for precision in PRECISIONS {
            case.run(&place(Device::Emulated, precision, settings.clone())).unwrap();
        }
    });
    let started: BTreeSet<&str> = counted.lock().unwrap().iter().map(|(kernel, _)| *kernel).collect();
    let mut wanted: BTreeSet<String> = BTreeSet::from(["copy_page".to_owned()]);
    for precision in PRECISIONS {
        for kernel in [
            "norm_heads",
            "patches",
            "class_and_position",
            "frame_embedding",
            "gather",
            "repeat",
            "append",
            "flash_attention_combine",
        ] {
            wanted.insert(format!("{kernel}_{precision}"));
        }
        for kernel in [
            "flash_attention_causal",
            "flash_attention_split",
            "flash_attention_full",
            "perceiver_attention",
            "masked_image_attention",
            "gated_cross_attention",
        ] {
            wanted.extend([64, 80, 96, 128].map(|width| format!("{kernel}_{precision}_{width}")));
        }
        wanted.extend([1, 2, 4, 8].map(|vectors| format!("norm_{precision}_{vectors}")));
        wanted.extend(["16x8", "32x8", "64x8", "128x16"].map(|form| format!("linear_rows_{precision}_{form}")));
        wanted.extend(["64x64", "128x128"].map(|form| format!("linear_tile_{precision}_{form}")));
    }
    let wanted: BTreeSet<&str> = wanted.iter().map(String::as_str).collect();
    let differ: Vec<_> = started.symmetric_difference(&wanted).collect();
    assert!(differ.is_empty(), "started without being known, or the reverse: {differ:?}");
}

/// Why rows of a batch are not those of the same rows alone; each case comes with the place of its first row in the
/// batch's output.
fn other_rows(batch: &Case, alone: &[(Case, usize)]) -> Vec<String> {
    let mut failures = Vec::new();
    for device in with_kernels() {
        for precision in PRECISIONS {
            let place = plain(device, precision);
            let whole = rows(batch, &place);
            for (alone, at) in alone {
                let start = at * alone.width();
                let same = whole.clone().and_then(|whole| {
                    let found = rows(alone, &place)?;
                    Ok(bits(&whole[start..][..found.len()]) == bits(&found))
                });
                if same != Ok(true) {
                    let why = same.err().unwrap_or_else(|| "other bits".to_owned());
                    failures.push(format!("{} in {}, {precision} on {device}: {why}", alone.name, batch.name));
                }
            }
        }
    }
    failures
}

#[test]
fn rows_of_linear_layers_are_the_same_in_any_batch() {
    let epilogues = [
        PLAIN,
        Besides { bias: true, activation: Some(Activation::Gelu), logits: true, ..PLAIN },
        Besides { activation: Some(Activation::Silu), paired: true, ..PLAIN },
        Besides { bias: true, gate: Gated::Vector, residual: true, ..PLAIN },
    ];
    let failures = on_all_cores(&epilogues, |&besides| {
        let mut failures = Vec::new();
        // The second is wide enough for tiles of 128 by 128 in the batch, not alone.
        for (columns, width, batch) in [(1040, 131, 130), (80, 4091, 130)] {
            let of = |count| cases::linear(Size::Small, count, columns, width, besides);
            failures.extend(other_rows(&of(batch), &[1, 2, 3, 5, 8, 9, 16, 17, 70].map(|count| (of(count), 0))));
        }
        failures
    });
    none_failed(failures.concat());
}

const ATTENTION: [(Heads, Order); 4] = [
    (Heads { count: 2, width: 64 }, Order::Rotary(64)),
    (Heads { count: 1, width: 80 }, Order::Rotary(32)),
    (Heads { count: 2, width: 48 }, Order::Alibi),
    (Heads { count: 1, width: 128 }, Order::None),
];

/// A token's row does not tell whether the tokens before it were there already, or came with it.
#[test]
fn a_prompt_read_whole_in_chunks_or_token_by_token_is_the_same() {
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
        other_rows(&read("whole", &[TOKENS]), &chunked)
    });
    none_failed(failures.concat());
}

#[test]
fn sequences_are_the_same_alone_and_together() {
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
            failures.extend(other_rows(&together, &alone.collect::<Vec<_>>()));
        }
        failures
    });
    none_failed(failures.concat());
}

/// Keys in pages that sequences have in common are read once for many of them: that is less to read, and nothing else.
#[test]
fn keys_in_common_are_read_together_with_the_same_bits() {
    let failures = on_all_cores(&ATTENTION, |&(heads, order)| {
        let mut failures = Vec::new();
        for forked in [cases::forked_few, cases::forked_many] {
            let [together, apart] = [true, false].map(|in_common| forked(heads, order, in_common));
            let read = |case: &Case| -> u64 {
                let counted = Arc::new(Mutex::new(Vec::new()));
                let settings = Settings { counted: Some(counted.clone()), ..Settings::default() };
                case.run(&place(Device::Emulated, Precision::Bf16, settings)).unwrap();
                let launches = counted.lock().unwrap();
                let split = launches.iter().filter(|(kernel, _)| kernel.starts_with("flash_attention_split"));
                split.map(|(_, counters)| counters.global_load_bytes).sum()
            };
            let (less, more) = (read(&together), read(&apart));
            if 10 * less > 8 * more {
                failures.push(format!("{}: {less} bytes read together, {more} apart", together.name));
            }
            failures.extend(other_rows(&together, &[(apart, 0)]));
        }
        failures
    });
    none_failed(failures.concat());
}

/// The fused kernel of few tokens is the parts that many tokens take.
#[test]
fn gated_blocks_are_the_same_fused_and_in_parts() {
    let kinds = [
        (Family::OpenFlamingo, 48, Heads { count: 2, width: 64 }, 66),
        (Family::OpenFlamingo, 272, Heads { count: 3, width: 16 }, 9),
        (Family::Idefics, 112, Heads { count: 2, width: 96 }, 64),
        (Family::Idefics, 1040, Heads { count: 1, width: 128 }, 130),
        (Family::Idefics, 80, Heads { count: 2, width: 80 }, 5),
    ];
    let failures = on_all_cores(&kinds, |&(family, width, heads, latents)| {
        let mut failures = Vec::new();
        let block = |media: &[Option<u32>]| cases::gated(Size::Small, family, width, heads, latents, 3, media.to_vec());
        for seen in [Seen::Mixed, Seen::Interleaved, Seen::Last] {
            let media = seen.list(81, 3);
            let few = [1, 2, 7, 16, 17, 40].map(|count| (block(&media[..count]), 0));
            failures.extend(other_rows(&block(&media), &few));
        }
        failures
    });
    none_failed(failures.concat());
}

#[test]
fn pictures_and_tokens_are_the_same_alone_and_together() {
    use Size::Small;
    let heads = Heads { count: 2, width: 96 };
    let media = Seen::Mixed.list(90, 3);
    let pairs: Vec<[Case; 2]> = vec![
        [3, 1].map(|pictures| cases::vision(Small, pictures, 66, Heads { count: 2, width: 80 })),
        [3, 2].map(|pictures| cases::picture(Small, pictures, heads, 9, &[70, 9], true)),
        [3, 1].map(|pictures| cases::patches(Small, pictures, 56, 14, 48)),
        [90, 1].map(|count| cases::masked(Small, heads, 65, 3, &media[..count], true)),
        [90, 17].map(|count| cases::masked(Small, heads, 65, 3, &media[..count], false)),
        [70, 1].map(|count| cases::norm(Small, Norm::Layer, true, count, 272)),
        [70, 3].map(|count| cases::norm(Small, Norm::Rms, false, count, 4112)),
        [33, 1].map(|count| cases::norm_heads(Small, Norm::Layer, true, count, 3, 48)),
    ];
    let failures = on_all_cores(&pairs, |[batch, alone]| other_rows(batch, &[(alone.clone(), 0)]));
    none_failed(failures.concat());
}

/// A step's launches are kept and captured, then replayed: each time with the same bits, on new numbers too.
#[test]
fn a_step_replayed_is_the_step_launched() {
    let heads = Heads { count: 2, width: 64 };
    let decode: &[(usize, u32)] = &[(0, 1), (1, 1), (2, 1)];
    let steps = [decode; 6];
    let media = Seen::Mixed.list(3, 3);
    let kept = [
        cases::causal(Size::Small, "decode", heads, Order::Rotary(64), &[130, 63, 5], &[decode]),
        cases::gated(Size::Small, Family::Idefics, 112, heads, 9, 3, media),
    ];
    for device in with_kernels() {
        for precision in PRECISIONS {
            let place = plain(device, precision);
            for case in &kept {
                let once = rows(case, &place).unwrap();
                let again = rows(&case.clone().repeated(4), &place).unwrap();
                assert!(again.chunks_exact(once.len()).all(|again| bits(again) == bits(&once)), "{}", case.name);
            }
            // Six steps in a row, of one shape, are six steps each made as the first.
            let walked = cases::causal(Size::Small, "steps", heads, Order::Alibi, &[130, 63, 5], &steps);
            let found = rows(&walked, &place).unwrap();
            let want = wanted(&walked, 1);
            assert_eq!(walked.compare(&found, &want, precision), Ok(()), "{}", walked.name);
        }
    }
}

/// More rows are drawn than there is workspace for at once, some greedily among them, and rows of logits are left over:
/// each row's choice is the one it has in a batch of few, and the rows that are left are those that were not asked for.
#[test]
fn choices_are_the_same_in_any_batch() {
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
    let request = |row: usize| Request {
        temperature: [0.0, 1.0, 2.5][row % 3],
        top_k: [0, 9][row % 2],
        top_p: [1.0, 0.7, 0.9, 1.0][row % 4],
        uniform: row as f64 / ROWS as f64,
        target: row.is_multiple_of(5).then_some(row as u32 % TOKENS as u32),
    };
    let requests: Vec<Request> = (0..ROWS - 1).map(request).collect();
    for device in with_kernels() {
        for precision in PRECISIONS {
            let (mut graph, mut weights) = (Graph::new(), Numbers::default());
            let input = graph.input(Axis::Tokens, 1, COLUMNS);
            let wanted = graph.select(input);
            let weight = weights.matrix(TOKENS, COLUMNS, matrix.clone());
            let logits = graph.linear(wanted, weight, TOKENS, None, Epilogue::default());
            let (media, text) = (Graph::new().plan(&[], None), graph.plan(&[input], Some(logits)));
            let plans = Plans { media, text, features: None };
            let (place, usual) = (plain(device, precision), Usual { images: 0, tokens: 8 });
            let mut probe = Probe::open(&place, weights, plans, Pools::default(), usual).unwrap();
            let mut choose = |outputs: &[u32], requests: &[Request]| {
                let zeros = [0; ROWS];
                let batch = Batch {
                    inputs: &[&x],
                    ids: &zeros,
                    positions: &zeros,
                    sequences: &zeros,
                    tables: &[&[]],
                    media: &[None; ROWS],
                    outputs,
                    ..Batch::default()
                };
                probe.choose(&batch, requests, &[3, 50]).unwrap()
            };
            let outputs: Vec<u32> = (0..ROWS as u32).rev().collect();
            let (together, rest) = choose(&outputs, &requests);
            // 1 row, 2 rows, and so on.
            let parts = (0..17).map(|part| part * (part + 1) / 2..((part + 1) * (part + 2) / 2).min(ROWS - 1));
            for rows in parts {
                let (alone, _) = choose(&outputs[rows.clone()], &requests[rows.clone()]);
                assert_eq!(alone, together[rows.clone()], "rows {rows:?}, {precision} on {device}");
            }
            assert_eq!(choose(&outputs[ROWS - 1..], &[]).1, rest, "{precision} on {device}");
            assert_eq!(rest.len(), TOKENS);
        }
    }
}
