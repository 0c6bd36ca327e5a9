"""Recurrent models: vanilla RNN, GRU and LSTM, with and without attention. Read ``model.py`` first."""
