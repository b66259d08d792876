/* api/cim/requested_state.tbl.h - CIM_ConcreteJob.RequestStateChange, RequestedState. ROW(value, symbol, name). */
ROW(2, CIM_REQUEST_START, "Start")
ROW(3, CIM_REQUEST_SUSPEND, "Suspend")
ROW(4, CIM_REQUEST_TERMINATE, "Terminate")
ROW(5, CIM_REQUEST_KILL, "Kill")
