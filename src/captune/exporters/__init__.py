"""What leaves captune: folders for the Hugging Face Hub."""
