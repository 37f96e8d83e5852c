# Copies $most bytes of the log from $from to standard output.
tail -c "+$((from + 1))" "$state/log" | head -c "$most"
