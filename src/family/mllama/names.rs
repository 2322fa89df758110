//! What files of Llama 3.2 Vision call the weights: as transformers saves them, or as newer versions have them in
//! memory.

use crate::checkpoint::Checkpoint;
use crate::config::VisionConfig;
use crate::family::language::LLAMA;
use crate::family::tables::{Section, Table, Tables};
use crate::weights::{Layout, Names};

/// What a checkpoint calls the weights.
pub(super) fn names(
    checkpoint: &Checkpoint,
    vision: &VisionConfig,
    cross: Vec<usize>,
    own: Vec<usize>,
) -> Box<dyn Names> {
    let in_memory = checkpoint.contains("model.language_model.embed_tokens.weight");
    let [decoder, head, tower, projector] = match in_memory {
        false => ["language_model.model.", "language_model.", "vision_model.", "multi_modal_projector."],
        true => ["model.language_model.", "", "model.vision_model.", "model.multi_modal_projector."],
    };
    let sections = vec![
        Section::new(tower, VISION),
        Section::new(projector, &[("projector", "%")]),
        Section::new(decoder, GATED).numbered(cross),
        Section::new(head, &[("decoder.head", "lm_head.%")]),
        Section::new(decoder, LLAMA.table).without("model.").numbered(own).harmless(HARMLESS),
    ];
    let states = vision.tiles.as_ref().map_or(0, |tiles| tiles.intermediate_layers.len());
    let layouts = vec![
        ("vision.position", Layout::TilePositions(vision.tokens())),
        ("vision.tile", Layout::Gated),
        ("projector", Layout::AlternatingColumns(states)),
    ];
    let own = &["language_model.", "vision_model.", "multi_modal_projector.", "model.", "lm_head."];
    Box::new(Tables { sections, own, layouts })
}

/// The vision tower. Its positions are folded into one table.
const VISION: Table = &[
    ("vision.patch", "patch_embedding.%"),
    (
        "vision.position",
        "class_embedding+gated_positional_embedding.embedding+gated_positional_embedding.gate+\
         gated_positional_embedding.tile_embedding.%+pre_tile_positional_embedding.embedding.%+\
         pre_tile_positional_embedding.gate",
    ),
    ("vision.norm_pre", "layernorm_pre.%"),
    ("vision.layers.{}.norm_attention", "transformer.layers.{}.input_layernorm.%"),
    (
        "vision.layers.{}.qkv",
        "transformer.layers.{}.self_attn.q_proj.%+transformer.layers.{}.self_attn.k_proj.%+\
         transformer.layers.{}.self_attn.v_proj.%",
    ),
    ("vision.layers.{}.out", "transformer.layers.{}.self_attn.o_proj.%"),
    ("vision.layers.{}.norm_mlp", "transformer.layers.{}.post_attention_layernorm.%"),
    ("vision.layers.{}.up", "transformer.layers.{}.mlp.fc1.%"),
    ("vision.layers.{}.down", "transformer.layers.{}.mlp.fc2.%"),
    ("vision.norm_post", "layernorm_post.%"),
    ("vision.tile", "post_tile_positional_embedding.embedding.%+post_tile_positional_embedding.gate"),
    ("vision.global.{}.norm_attention", "global_transformer.layers.{}.input_layernorm.%"),
    (
        "vision.global.{}.qkv",
        "global_transformer.layers.{}.self_attn.q_proj.%+global_transformer.layers.{}.self_attn.k_proj.%+\
         global_transformer.layers.{}.self_attn.v_proj.%",
    ),
    ("vision.global.{}.out", "global_transformer.layers.{}.self_attn.o_proj.%"),
    ("vision.global.{}.gate_attention", "global_transformer.layers.{}.gate_attn"),
    ("vision.global.{}.norm_mlp", "global_transformer.layers.{}.post_attention_layernorm.%"),
    ("vision.global.{}.up", "global_transformer.layers.{}.mlp.fc1.%"),
    ("vision.global.{}.down", "global_transformer.layers.{}.mlp.fc2.%"),
    ("vision.global.{}.gate_mlp", "global_transformer.layers.{}.gate_ffn"),
];

/// The gated blocks.
const GATED: Table = &[
    ("gated.{}.norm_attention", "layers.{}.input_layernorm.%"),
    ("gated.{}.query", "layers.{}.cross_attn.q_proj.%"),
    ("gated.{}.key_value", "layers.{}.cross_attn.k_proj.%+layers.{}.cross_attn.v_proj.%"),
    ("gated.{}.query_norm", "layers.{}.cross_attn.q_norm.%"),
    ("gated.{}.key_norm", "layers.{}.cross_attn.k_norm.%"),
    ("gated.{}.out", "layers.{}.cross_attn.o_proj.%"),
    ("gated.{}.gate_attention", "layers.{}.cross_attn_attn_gate"),
    ("gated.{}.norm_mlp", "layers.{}.post_attention_layernorm.%"),
    ("gated.{}.up", "layers.{}.mlp.gate_proj.%+layers.{}.mlp.up_proj.%"),
    ("gated.{}.down", "layers.{}.mlp.down_proj.%"),
    ("gated.{}.gate_mlp", "layers.{}.cross_attn_mlp_gate"),
];

/// Frequencies of the rotary embedding, which are computed.
const HARMLESS: &[&str] = &["rotary_emb.inv_freq", "layers.{}.self_attn.rotary_emb.inv_freq"];
