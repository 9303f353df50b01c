//! The live path through the public API: the chat, and the event streams with all that can happen to them.

mod chat;
mod resume;
mod scene;
mod sse;
