//! Every operation on every device: against the oracle, against itself under other schedules, and against itself in
//! other batches.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use crate::support::cases::{self, Besides, Case, Heads, Order, PLAIN, Seen, Size};
use crate::support::devices::{DTYPES, on_all_cores, with_kernels};
use crate::support::equalities::{self, ATTENTION, Equality, LINEAR_BATCHES, bits, rows};
use flamant::config::Norm;
use flamant::probe::emulated::{Schedule, Settings};
use flamant::probe::tuning::{LINEAR_FORMS, LinearShape};
use flamant::probe::{Device, Dtype, Place};

/// A device; the emulator on one thread, since cases run side by side.
fn place(device: Device, dtype: Dtype, settings: Settings) -> Place {
    Place { emulated: Settings { workers: 1, ..settings }, ..Place::new(device, Some(dtype)) }
}

fn plain(device: Device, dtype: Dtype) -> Place {
    place(device, dtype, Settings::default())
}

/// The processor's rows.
fn wanted(case: &Case, threads: usize) -> Vec<f32> {
    case.run(&Place { threads, ..Place::new(Device::Cpu, None) }).unwrap()
}

fn none_failed(failures: Vec<String>) {
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
}

/// Why a device's rows are not those that are wanted.
fn other_results(case: &Case, device: Device, dtype: Dtype, want: &[f32]) -> Option<String> {
    let found = rows(case, &plain(device, dtype));
    let wrong = found.and_then(|found| {
        if std::env::var_os("FLAMANT_SHOW_DISTANCES").is_some() {
            let (mean, largest) = cases::distance(&found, want, case.width());
            eprintln!("{mean:.2e} {largest:.4} {dtype} {device} {}", case.name);
        }
        case.compare(&found, want, dtype)
    });
    wrong.err().map(|why| format!("{}, {dtype} on {device}: {why}", case.name))
}

#[test]
fn every_operation_is_the_oracles() {
    let devices = with_kernels();
    let failures = on_all_cores(&cases::small(), |case| {
        let want = case.oracle();
        let each = devices.iter().flat_map(|&device| DTYPES.map(|dtype| (device, dtype)));
        each.filter_map(|(device, dtype)| other_results(case, device, dtype, &want)).collect::<Vec<_>>()
    });
    none_failed(failures.concat());
}

/// The processor computes in f32 what the oracle computes in f64.
#[test]
fn the_processor_is_the_oracle_to_rounding() {
    let failures = on_all_cores(&cases::small(), |case| {
        let (found, want) = (wanted(case, 1), case.oracle());
        if std::env::var_os("FLAMANT_SHOW_DISTANCES").is_some() {
            let (mean, largest) = cases::distance(&found, &want, case.width());
            eprintln!("{mean:.2e} {largest:.2e} processor {}", case.name);
        }
        case.compare(&found, &want, None).err().map(|why| format!("{} on the processor: {why}", case.name))
    });
    none_failed(failures.into_iter().flatten().collect());
}

/// On a GPU all of them; in the emulator those of few operations.
#[test]
fn shapes_of_real_models_are_the_processors() {
    const EMULATED_FLOPS_MAX: u64 = 300_000_000;
    let (real, devices) = (cases::real(), with_kernels());
    let emulated = devices.contains(&Device::Emulated);
    let few: Vec<&Case> = real.iter().filter(|case| emulated && case.flops() <= EMULATED_FLOPS_MAX).collect();
    let check = |case: &&Case| other_results(case, Device::Emulated, Dtype::Bf16, &wanted(case, 1));
    let mut failures: Vec<String> = on_all_cores(&few, check).into_iter().flatten().collect();
    for device in devices.into_iter().filter(|device| *device != Device::Emulated) {
        for case in &real {
            let want = wanted(case, 0);
            failures.extend(DTYPES.into_iter().filter_map(|dtype| other_results(case, device, dtype, &want)));
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
        for dtype in DTYPES {
            let want = rows(case, &plain(Device::Emulated, dtype)).map(|rows| bits(&rows));
            for schedule in [Schedule::Plain, Schedule::Warps, Schedule::Lanes] {
                for (seed, early_copies) in [(1, false), (2, true), (3, false)] {
                    if schedule == Schedule::Plain && seed > 2 {
                        continue;
                    }
                    let settings = Settings { schedule, seed, early_copies, checked: true, ..Settings::default() };
                    let found = rows(case, &place(Device::Emulated, dtype, settings)).map(|rows| bits(&rows));
                    if found != want {
                        let why = found.err().unwrap_or_else(|| "other bits".to_owned());
                        let how = format!("{schedule:?}, seed {seed}, early copies {early_copies}");
                        failures.push(format!("{}, {dtype}, {how}: {why}", case.name));
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
        for dtype in DTYPES {
            case.run(&place(Device::Emulated, dtype, settings.clone())).unwrap();
        }
    });
    let started: BTreeSet<&str> = counted.lock().unwrap().iter().map(|(kernel, _)| *kernel).collect();
    let mut wanted: BTreeSet<String> = BTreeSet::from(["copy_page".to_owned()]);
    for dtype in DTYPES {
        for kernel in [
            "norm_heads",
            "patches",
            "class_and_position",
            "frame_embedding",
            "tile_embedding",
            "concatenate",
            "gather",
            "repeat",
            "append",
            "flash_attention_combine",
        ] {
            wanted.insert(format!("{kernel}_{dtype}"));
        }
        for kernel in [
            "flash_attention_causal",
            "flash_attention_split",
            "flash_attention_full",
            "perceiver_attention",
            "masked_image_attention",
            "gated_cross_attention",
        ] {
            wanted.extend([64, 80, 96, 128].map(|width| format!("{kernel}_{dtype}_{width}")));
        }
        wanted.extend([1, 2, 4, 8].map(|vectors| format!("norm_{dtype}_{vectors}")));
        let names = LINEAR_FORMS.map(|form| form.name());
        wanted.extend(names.map(|(kernel, variant)| format!("{kernel}_{dtype}_{variant}")));
    }
    let wanted: BTreeSet<&str> = wanted.iter().map(String::as_str).collect();
    let differ: Vec<_> = started.symmetric_difference(&wanted).collect();
    assert!(differ.is_empty(), "started without being known, or the reverse: {differ:?}");
}

/// Holds the emulator, and a GPU if there is one, to an equality.
fn hold(equality: Equality) {
    let places: Vec<Place> =
        with_kernels().into_iter().flat_map(|device| DTYPES.map(|dtype| plain(device, dtype))).collect();
    none_failed(equality(&places));
}

#[test]
fn rows_of_linear_layers_are_the_same_in_any_batch() {
    hold(equalities::rows_of_linear_layers);
}

/// Each form asks for the bytes that it is reckoned to ask for.
#[test]
fn linear_forms_ask_for_what_is_reckoned() {
    let counted = Arc::new(Mutex::new(Vec::new()));
    let settings = Settings { counted: Some(counted.clone()), ..Settings::default() };
    let place = place(Device::Emulated, Dtype::Bf16, settings);
    let mut started = BTreeSet::new();
    for (batch, columns, width, workload) in LINEAR_BATCHES {
        for paired in [false, true] {
            for &count in workload.iter().chain([&batch]) {
                cases::linear(Size::Small, count, columns, width, Besides { paired, ..PLAIN })
                    .on_hopper()
                    .run(&place)
                    .unwrap();
                let launches = std::mem::take(&mut *counted.lock().unwrap());
                let linear = launches.iter().filter(|(kernel, _)| kernel.starts_with("linear"));
                let [(kernel, counters)] = linear.collect::<Vec<_>>()[..] else { panic!("{launches:?}") };
                let form = LINEAR_FORMS.into_iter().find(|form| {
                    let (name, variant) = form.name();
                    format!("{name}_bf16_{variant}") == *kernel
                });
                let form = form.unwrap_or_else(|| panic!("what is {kernel}?"));
                // A step of few tokens of each sequence is filled up with rows of nobody (`batch.rs`).
                let filled = [1, 2, 4, 8, 12, 16].into_iter().find(|&filled| count <= filled).unwrap_or(count);
                let shape = LinearShape { rows: filled as u32, columns: columns as u32, width: width as u32, paired };
                assert_eq!(counters.global_load_bytes as f64, form.asked_bytes(&shape), "{kernel}, {shape:?}");
                started.insert(form.name());
            }
        }
    }
    assert_eq!(started.len(), LINEAR_FORMS.len(), "no batch takes some forms: {started:?}");
}

#[test]
fn a_prompt_read_whole_in_chunks_or_token_by_token_is_the_same() {
    hold(equalities::chunks_of_a_prompt);
}

#[test]
fn sequences_are_the_same_alone_and_together() {
    hold(equalities::sequences);
}

#[test]
fn keys_in_common_are_read_together_with_the_same_bits() {
    hold(equalities::keys_in_common);
}

#[test]
fn gated_blocks_are_the_same_fused_and_in_parts() {
    hold(equalities::gated_blocks);
}

#[test]
fn heads_that_share_keys_are_heads_with_the_same_keys_each() {
    hold(equalities::grouped_heads);
}

#[test]
fn images_and_tokens_are_the_same_alone_and_together() {
    hold(equalities::images_and_tokens);
}

#[test]
fn keys_and_values_in_8_bits_are_as_alone_and_as_the_numbers_they_stand_for() {
    hold(equalities::keys_and_values_in_8_bits);
}

#[test]
fn a_step_replayed_is_the_step_launched() {
    hold(equalities::replayed_steps);
}

#[test]
fn choices_are_the_same_in_any_batch() {
    hold(equalities::choices);
}

/// What memory bounds asks for each byte little more than once (`benches/counts.rs` has more and larger ones).
#[test]
fn kernels_bound_by_memory_ask_for_little_more_than_the_least() {
    const RATIO_MAX: f64 = 1.15;
    let heads = cases::heads(8, 64);
    let decode: Vec<(usize, u32)> = (0..4).map(|sequence| (sequence, 1)).collect();
    let mut few = vec![
        cases::causal(Size::Small, "decode", heads, Order::Alibi, &[511; 4], &[&decode]),
        cases::norm(Size::Small, Norm::Rms, false, 64, 2048),
        cases::gather(Size::Small, 64, 2048, false),
        cases::class_and_position(Size::Small, 2, 64, 512),
        cases::broadcast(Size::Small, 4, 64, 512),
        cases::tile_positions(Size::Small, cases::tiled(&[(6, 4), (1, 1)], 4), 32, 512),
        cases::fill_rows(Size::Small, 2, 64, 70, 512),
        cases::concatenate(Size::Small, 2, 70, 64, &[256; 3]),
        // One token to an image of 101 pages.
        cases::masked(Size::Small, heads, &[6404], &Seen::Last.list(1, 1), false),
    ];
    few.extend([1, 4, 16].map(|count| cases::linear(Size::Small, count, 1024, 512, PLAIN)));
    let failures = on_all_cores(&few, |case| {
        let asked = case.asked_bytes(&plain(Device::Emulated, Dtype::Bf16)).unwrap();
        let ratio = asked as f64 / case.bytes() as f64;
        (!(1.0..RATIO_MAX).contains(&ratio)).then(|| format!("{}: {ratio:.3} times the least", case.name))
    });
    none_failed(failures.into_iter().flatten().collect());
}

/// Keys that heads share are read once for all of them, as many as fit a stripe: a quarter of the bytes for four heads,
/// but for queries and partial results.
#[test]
fn keys_that_heads_share_are_read_once() {
    let decode: Vec<(usize, u32)> = (0..4).map(|sequence| (sequence, 1)).collect();
    let decoded = |heads| cases::causal(Size::Small, "decode", heads, Order::None, &[511; 4], &[&decode]);
    let seen = |heads| cases::masked(Size::Small, heads, &[6404], &Seen::Last.list(1, 1), false);
    let seen_by_few = |heads| cases::masked(Size::Small, heads, &[640], &Seen::Last.list(4, 1), false);
    let forms: [&dyn Fn(Heads) -> Case; 3] = [&decoded, &seen, &seen_by_few];
    for form in forms {
        let asked =
            |heads| form(heads).asked_bytes(&plain(Device::Emulated, Dtype::Bf16)).expect("the emulator runs it");
        let (shared, apart) = (asked(cases::grouped(8, 2, 64)), asked(cases::heads(8, 64)));
        assert!(5 * shared < 2 * apart, "{shared} bytes of shared heads of keys, {apart} of as many as of queries");
    }
}

/// That is what it is for: fewer bytes. Where heads share keys there are fewer to read in common.
#[test]
fn keys_in_common_are_read_once() {
    for (heads, order) in ATTENTION {
        for forked in [cases::forked_few, cases::forked_many] {
            let [together, apart] = [true, false].map(|in_common| {
                let counted = Arc::new(Mutex::new(Vec::new()));
                let settings = Settings { counted: Some(counted.clone()), ..Settings::default() };
                forked(heads, order, in_common).run(&place(Device::Emulated, Dtype::Bf16, settings)).unwrap();
                let launches = counted.lock().unwrap();
                let split = launches.iter().filter(|(kernel, _)| kernel.starts_with("flash_attention_split"));
                split.map(|(_, counters)| counters.global_load_bytes).sum::<u64>()
            });
            let most = if heads.kv == heads.count { 8 * apart } else { 10 * apart - 1 };
            assert!(10 * together <= most, "{together} bytes read together, {apart} apart");
        }
    }
}
