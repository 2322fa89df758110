//! Which form of the kernel of linear layers serves the shapes of the real models, by the reckoning.

#[allow(dead_code, reason = "only the models are wanted")]
#[path = "../../benches/real.rs"]
mod real;

use std::collections::BTreeSet;

use crate::kernel_report;
use flamant::probe::linear_layers;
use flamant::probe::tuning::{LINEAR_FORMS, LinearForm, LinearShape, Machine, linear_form};

const ROWS_MAX: u32 = 4096;
/// A chosen form takes at most so many times the least reckoned time.
const OVER_BEST_MAX: f64 = 1.15;

/// H200, A100, RTX PRO 6000: multiprocessors and shared memory of a block.
const MACHINES: [(u32, u32); 3] = [(132, 227 << 10), (108, 163 << 10), (188, 99 << 10)];

/// The forms whose kernels there are: what nvcc compiles is held to this list by `tests/kernels/compiled.rs`.
fn compiled_forms() -> Vec<LinearForm> {
    let starts = kernel_report::starts();
    let linear = starts.iter().filter(|start| start.name.starts_with("linear_") && start.name.contains("_bf16_"));
    let forms = linear.map(|start| {
        let (kernel, variant) = start.name.split_once("_bf16_").expect("it is in the name");
        let form = LINEAR_FORMS.into_iter().find(|form| form.name() == (kernel, variant.to_owned()));
        let form = form.unwrap_or_else(|| panic!("{} is never chosen: tuning.rs does not know it", start.name));
        assert_eq!((form.threads(), form.shared_bytes()), (start.threads, start.shared_bytes), "{}", start.name);
        form
    });
    forms.collect()
}

#[test]
fn chosen_forms_are_near_the_best_for_all_layers_of_the_real_models() {
    let forms = compiled_forms();
    assert_eq!(forms.len(), LINEAR_FORMS.len(), "every form has a kernel");
    let layers = real::all_models().into_iter().flat_map(|model| linear_layers(&model.config).unwrap());
    let layers: BTreeSet<_> = layers.map(|layer| (layer.columns, layer.width, layer.paired)).collect();
    assert!(layers.contains(&(4096, 11_008, true)) && layers.contains(&(22_016, 8192, false)), "{layers:?}");
    let mut chosen = BTreeSet::new();
    for (multiprocessors, shared_bytes_max) in MACHINES {
        let machine = Machine::new(multiprocessors, shared_bytes_max);
        for &(columns, width, paired) in &layers {
            for rows in 1..=ROWS_MAX {
                let shape = LinearShape { rows, columns: columns as u32, width: width as u32, paired };
                let form = linear_form(&machine, &shape);
                let serving = forms.iter().filter(|form| form.serves(&machine, &shape));
                let best = serving.map(|form| form.seconds(&machine, &shape)).fold(f64::INFINITY, f64::min);
                let over = form.seconds(&machine, &shape) / best;
                assert!(over <= OVER_BEST_MAX, "{shape:?} on {multiprocessors}: {:?} takes {over:.2}", form.name());
                chosen.insert(form.name());
            }
        }
    }
    let never: Vec<_> = forms.iter().map(LinearForm::name).filter(|name| !chosen.contains(name)).collect();
    assert!(never.is_empty(), "no shape of a real model takes {never:?}");
}
