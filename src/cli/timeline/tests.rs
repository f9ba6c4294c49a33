//! What a person sees of one exchange, and of many.
