/* api/cim/severity.tbl.h - CIM_Error.PerceivedSeverity. ROW(value, symbol, name). */
ROW(0, CIM_SEVERITY_UNKNOWN, "Unknown")
ROW(1, CIM_SEVERITY_OTHER, "Other")
ROW(2, CIM_SEVERITY_INFORMATION, "Information")
ROW(3, CIM_SEVERITY_WARNING, "Degraded/Warning")
ROW(4, CIM_SEVERITY_MINOR, "Minor")
ROW(5, CIM_SEVERITY_MAJOR, "Major")
ROW(6, CIM_SEVERITY_CRITICAL, "Critical")
ROW(7, CIM_SEVERITY_FATAL, "Fatal/NonRecoverable")
