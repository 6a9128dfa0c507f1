"""What puts right what a fault left behind."""
