"""What we do: signal, decision, position, plan, action, closed trade. Pure: values in, strands out."""
