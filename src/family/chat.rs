//! How turns of a conversation become a prompt: a few texts of each family.

/// Texts around the turns of a conversation. A user's turn is `user_before`, its parts with `user_text_before` before
/// the first text, and `user_after`, or `user_after_images` if it has no text. An answer is `answer_before`,
/// `answer_text_before`, its text and `answer_after`. The prompt ends with `answer_before`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChatTemplate {
    /// What reports call it.
    pub name: &'static str,
    /// Begins the prompt.
    pub begin: &'static str,
    /// Before what the system is told.
    pub system_before: &'static str,
    /// Before that, where a conversation has no image: then there is a system's turn in any case.
    pub system_text_only: &'static str,
    /// After it.
    pub system_after: &'static str,
    /// Before a user's turn.
    pub user_before: &'static str,
    /// Before its first text.
    pub user_text_before: &'static str,
    /// After it.
    pub user_after: &'static str,
    /// After a turn of images alone, in place of that.
    pub user_after_images: &'static str,
    /// Before an answer.
    pub answer_before: &'static str,
    /// Before its text.
    pub answer_text_before: &'static str,
    /// After it.
    pub answer_after: &'static str,
    /// Texts that end an answer beside the tokens that do.
    pub stop: &'static [&'static str],
    /// Texts of tokens that no turn may hold, since they would forge another.
    pub reserved: &'static [&'static str],
}

impl ChatTemplate {
    /// Nothing around anything.
    pub const RAW: ChatTemplate = ChatTemplate {
        name: "raw",
        begin: "",
        system_before: "",
        system_text_only: "",
        system_after: "",
        user_before: "",
        user_text_before: "",
        user_after: "",
        user_after_images: "",
        answer_before: "",
        answer_text_before: "",
        answer_after: "",
        stop: &[],
        reserved: &[],
    };
}
