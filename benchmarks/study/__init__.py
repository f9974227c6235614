"""The study: does tuning on judged, unlabelled photos help, how far towards what labels give, and what is forgotten?"""
