/* api/cim/request_return.tbl.h - what RequestStateChange returns: its own map.
 * ROW(value, symbol, name). */
ROW(0, CIM_CHANGE_OK, "Completed with No Error")
ROW(1, CIM_CHANGE_NOT_SUPPORTED, "Not Supported")
ROW(2, CIM_CHANGE_UNKNOWN, "Unknown/Unspecified Error")
ROW(3, CIM_CHANGE_TIMEOUT, "Can NOT complete within Timeout Period")
ROW(4, CIM_CHANGE_FAILED, "Failed")
ROW(5, CIM_CHANGE_INVALID_PARAMETER, "Invalid Parameter")
ROW(6, CIM_CHANGE_IN_USE, "In Use")
ROW(4096, CIM_CHANGE_STARTED, "Method Parameters Checked - Transition Started")
ROW(4097, CIM_CHANGE_INVALID_TRANSITION, "Invalid State Transition")
ROW(4098, CIM_CHANGE_NO_TIMEOUT_PERIOD, "Use of Timeout Parameter Not Supported")
ROW(4099, CIM_CHANGE_BUSY, "Busy")
